import numpy as np
from small_graphs import residual_model, small_model

from edgecv.graph.liveness import Liveness, measure_liveness
from edgecv.graph.shapes import fixed_shapes

IMAGE = 4 * 3 * 144


def _measured(body: str, weights: dict[str, object]) -> Liveness:
    return measure_liveness(fixed_shapes(small_model(body, weights, outputs=("float y",))))


def test_a_chain_holds_the_input_of_the_graph_and_two_neighbours() -> None:
    found = _measured("a = Relu(image) b = Relu(a) y = Relu(b)", {})
    assert (found.peak_bytes, found.complete) == (3 * IMAGE, True)
    assert [size // IMAGE for size in found.held_bytes.values()] == [2, 3, 3]


def test_a_shortcut_is_held_until_it_is_added() -> None:
    found = _measured("a = Relu(image) b = Relu(a) c = Relu(b) y = Add(c, a)", {})
    assert found.peak_bytes == 4 * IMAGE
    assert [size // IMAGE for size in found.held_bytes.values()] == [2, 3, 4, 4]


def test_views_and_weights_take_nothing() -> None:
    found = _measured("f = Flatten(image) y = Gemm<transB=1>(f, w)", {"w": (7, 432)})
    assert found.peak_bytes == IMAGE + 4 * 7


def test_a_quantized_layer_holds_codes_only() -> None:
    zero, one = np.array(0, np.uint8), np.array(1, np.float32)
    body = """
        q = QuantizeLinear(image, one, zero) d = DequantizeLinear(q, one, zero)
        n = Neg(d) r = Relu(n) p = QuantizeLinear(r, one, zero) y = DequantizeLinear(p, one, zero)
    """
    assert _measured(body, {"zero": zero, "one": one}).peak_bytes == IMAGE + 2 * IMAGE // 4


def test_the_peak_names_its_node_and_grows_with_the_batch() -> None:
    one, four = (measure_liveness(fixed_shapes(residual_model(), batch=n)) for n in (1, 4))
    assert four.peak_bytes == 4 * one.peak_bytes
    assert one.peak_node is not None
    assert one.held_bytes[one.peak_node] == one.peak_bytes
