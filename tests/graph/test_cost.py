import numpy as np
import pytest
from small_graphs import residual_model, small_model

from edgecv.graph.cost import count_macs, uncounted
from edgecv.graph.shapes import fixed_shapes


def _macs(body: str, weights: dict[str, object], *, outputs: str = "float y", opset: int = 18) -> list[int]:
    graph = fixed_shapes(small_model(body, weights, outputs=(outputs,), opset=opset))
    assert not uncounted(graph)
    return list(count_macs(graph).values())


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("y = Conv(image, w)", {"w": (4, 3, 3, 3)}, 4 * 10 * 10 * 27),
        ("y = Conv<strides=[2,2], pads=[1,1,1,1]>(image, w, b)", {"w": (4, 3, 3, 3), "b": (4,)}, 4 * 6 * 6 * 27),
        ("y = Conv<group=3, dilations=[2,2]>(image, w)", {"w": (6, 1, 3, 3)}, 6 * 8 * 8 * 9),
        ("y = ConvTranspose<strides=[2,2]>(image, w)", {"w": (3, 5, 2, 2)}, 3 * 12 * 12 * 5 * 4),
        ("f = Flatten(image) y = Gemm<transB=1>(f, w)", {"w": (7, 432)}, 432 * 7),
        ("f = Flatten(image) y = Gemm(f, w)", {"w": (432, 7)}, 432 * 7),
        ("f = Flatten(image) t = Transpose(f) y = Gemm<transA=1>(t, w)", {"w": (432, 7)}, 432 * 7),
        ("y = MatMul(image, w)", {"w": (12, 5)}, 3 * 12 * 5 * 12),
        ("t = Transpose<perm=[0,1,3,2]>(image) y = MatMul(t, image)", {}, 3 * 12 * 12 * 12),
        ('y = Einsum<equation="nchw,cd->ndhw">(image, w)', {"w": (3, 5)}, 3 * 12 * 12 * 5),
    ],
)
def test_every_rule_agrees_with_a_count_by_hand(body: str, weights: dict[str, object], expected: int) -> None:
    assert _macs(body, weights) == [expected]


def test_attention_counts_both_products() -> None:
    body = "y = Attention(image, image, image)"
    assert _macs(body, {}, opset=23) == [2 * 3 * 12 * 12 * 12]


def test_a_batch_multiplies_the_cost() -> None:
    one, four = (sum(count_macs(fixed_shapes(residual_model(), batch=n)).values()) for n in (1, 4))
    assert four == 4 * one == 4 * (8 * 144 * 27 + 8 * 144 * 9 + 8 * 144 * 8 + 5 * 8)


def test_what_cannot_be_counted_is_named() -> None:
    weights = {"w": (1, 16, 12), "r": (1, 16, 4), "shape": np.array([3, 12, 12])}
    graph = fixed_shapes(
        small_model("s = Reshape(image, shape) y = LSTM<hidden_size=4>(s, w, r)", weights, outputs=("float y",))
    )
    assert [n.op_type for n in uncounted(graph)] == ["LSTM"]
