import numpy as np
import pytest
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.quantize.bias_correction import correct_biases, layer_inputs
from edgecv.quantize.calibrate import observe
from edgecv.quantize.placement import place_quantizers
from edgecv.quantize.static import quantize_static
from edgecv.quantize.weights import QuantizedWeight

DATA = images(32)


def test_the_mean_error_of_rounded_weights_is_gone_from_every_layer() -> None:
    body = """
        a = Conv<pads=[1,1,1,1], strides=[2,2], dilations=[1,1]>(image, w)
        r = Relu(a)
        g = GlobalAveragePool(r) f = Flatten(g)
        y = Gemm(f, v)
    """
    shapes: dict[str, object] = {"w": (4, 3, 3, 3), "v": (4, 5)}
    model = small_model(body, shapes)
    placement = place_quantizers(model)
    nodes = {n.name: n for n in model.graph}
    means = observe(model, [], lambda: iter([DATA]), mean_of=layer_inputs(model, placement)).means
    rng = np.random.default_rng(0)
    weights, rounded = {}, small_model(body, shapes)
    for name in placement.layers:
        value = nodes[name].inputs[1]
        array = value.const_value.numpy()  # type: ignore[union-attr]
        codes = np.clip(np.rint(array / 0.02) + rng.integers(-3, 4, array.shape), -127, 127).astype(np.int8)
        axis = 0 if name.startswith("Conv") else 1
        weights[name] = QuantizedWeight(codes, np.full(array.shape[axis], 0.02, np.float32), axis)
        rounded.graph.initializers[str(value.name)].const_value = rounded_tensor(codes)  # type: ignore[union-attr]
    before, after = first_layer_error(model, rounded), None
    assert correct_biases(model, placement, weights, means) == 2
    rounded_corrected = small_model(body, shapes)
    for name in placement.layers:
        for index in (1, 2):
            source = nodes[name].inputs[index]
            target = next(n for n in rounded_corrected.graph if n.name == name)
            target.resize_inputs(3)
            array = weights[name].codes * np.float32(0.02) if index == 1 else source.const_value.numpy()  # type: ignore[union-attr]
            target.replace_input_with(index, initializer(rounded_corrected, f"{name}_{index}", array))
    after = first_layer_error(small_model(body, shapes), rounded_corrected)
    assert before > 0.01
    assert after < 1e-5


def rounded_tensor(codes: np.ndarray) -> object:
    import onnx_ir as ir

    return ir.tensor(codes * np.float32(0.02))


def initializer(model: object, name: str, array: np.ndarray) -> object:
    from edgecv.graph.values import add_initializer

    return add_initializer(model.graph, name, array)  # type: ignore[attr-defined]


def first_layer_error(a: object, b: object) -> float:
    """Largest mean error of a channel of the first layer, over the images and all positions."""
    results = []
    for model in (a, b):
        copy = model.clone()  # type: ignore[attr-defined]
        copy.graph.outputs[:] = [next(iter(n.outputs[0] for n in copy.graph if n.op_type == "Conv"))]
        results.append(run(copy, DATA).mean(axis=(0, 2, 3)))
    return float(np.abs(results[0] - results[1]).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_with_inputs_of_large_mean_gains_from_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = np.float32(rng.standard_normal((8, 1, 3, 3)) * 0.1)
    weight[:, 0, 0, 0] = np.copysign(0.5, weight[:, 0, 0, 0])  # makes the steps of the others coarse
    pointwise = np.float32(rng.standard_normal((8, 8, 1, 1)) * 0.1)
    pointwise[:, 0] = 0.5
    float_model = residual_model(w2=weight, w3=pointwise, b1=np.full(8, 1.5, np.float32))
    test = images(64, seed=5)
    without, corrected = (
        quantize_static(float_model, MANIFEST, lambda: iter([DATA]), bias_correction=on).model for on in (False, True)
    )
    reference = run(float_model, test)
    assert sqnr_db(reference, run(corrected, test)) > sqnr_db(reference, run(without, test)) + 1.5


@pytest.mark.parametrize(("body", "corrected"), [("h = MatMul(n, v) y = Add(h, b)", 1), ("y = MatMul(n, v)", 0)])
def test_a_product_is_corrected_in_the_add_behind_it(body: str, corrected: int) -> None:
    model = small_model(f"n = Flatten(image) {body}", {"v": (432, 5), "b": (5,)})
    placement = place_quantizers(model)
    assert placement.layers == ("MatMul_1",)
    means = observe(model, [], lambda: iter([DATA]), mean_of=layer_inputs(model, placement)).means if corrected else {}
    weights = {"MatMul_1": QuantizedWeight(np.ones((432, 5), np.int8), np.full(5, 0.1, np.float32), 1)}
    assert correct_biases(model, placement, weights, means) == corrected
