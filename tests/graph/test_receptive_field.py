import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import residual_model, run, small_model

from edgecv.graph.receptive_field import ReceptiveField, receptive_fields
from edgecv.graph.shapes import dims, fixed_shapes


def _last(body: str, weights: dict[str, object]) -> ReceptiveField:
    graph = fixed_shapes(small_model(body, weights, outputs=("float y",)))
    return receptive_fields(graph)[graph.graph.outputs[0]]


W3, W5 = {"w": (3, 3, 3, 3)}, {"w": (3, 3, 3, 3), "v": (3, 3, 5, 5)}


@pytest.mark.parametrize(
    ("body", "size", "stride", "offset"),
    [
        ("y = Conv(image, w)", 3, 1, 1),
        ("y = Conv<pads=[1,1,1,1]>(image, w)", 3, 1, 0),
        ("y = Conv<dilations=[2,2]>(image, w)", 5, 1, 2),
        ("y = Conv<strides=[2,2], pads=[1,1,1,1]>(image, w)", 3, 2, 0),
        ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(image, w)', 3, 2, 1),
        ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(image, w)', 3, 2, 0),
        ("a = Conv<strides=[2,2]>(image, w) y = Conv(a, w)", 7, 2, 3),
        ("a = Conv(image, w) y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)", 4, 2, 1.5),
        ("a = Conv(image, w) b = Conv<pads=[1,1,1,1]>(a, w) y = Add(a, b)", 5, 1, 1),
        ("y = SpaceToDepth<blocksize=2>(image)", 2, 2, 0.5),
        ("a = Conv<strides=[2,2]>(image, w) y = Relu(a)", 3, 2, 1),
        ("y = ConvTranspose<strides=[2,2]>(image, u)", 1, 0.5, -0.25),
    ],
)
def test_windows_follow_the_published_rules(body: str, size: float, stride: float, offset: float) -> None:
    found = _last(body, {"w": (3, 3, 3, 3), "u": (3, 3, 2, 2)})
    assert found == ReceptiveField((size, size), (stride, stride), (offset, offset))


def test_the_field_is_what_a_changed_pixel_reaches() -> None:
    body = """
        a = Conv<strides=[2,2], pads=[1,1,1,1]>(image, w) b = Relu(a)
        c = Conv(b, w) d = AveragePool<kernel_shape=[2,2]>(c) y = Add(d, d)
    """
    model = small_model(body, W3, outputs=("float[batch, c, h, w] y",))
    found = _last(body, W3)
    base = np.ones((1, 3, 12, 12), np.float32)
    still = run(model, base)
    seen = []
    for row in range(12):
        changed = base.copy()
        changed[..., row, :] = 30.0
        if not np.array_equal(run(model, changed)[:, :, 1], still[:, :, 1]):
            seen.append(row)
    assert found.size[0] is not None
    assert found.stride[0] is not None
    assert found.offset[0] is not None
    centre = found.offset[0] + found.stride[0]
    assert (seen[0], seen[-1]) == (centre - (found.size[0] - 1) / 2, centre + (found.size[0] - 1) / 2)


def test_both_axes_are_followed_by_themselves() -> None:
    found = _last("y = Conv<strides=[1,2]>(image, w)", {"w": (3, 3, 1, 5)})
    assert found == ReceptiveField((1, 5), (1, 2), (0, 2))


def test_an_image_with_channels_last_is_followed_through_its_transpose(tiny_model: object) -> None:
    graph = fixed_shapes(ir.load(str(tiny_model)))
    found = {v.name: field for v, field in receptive_fields(graph).items()}
    assert found["nchw"] == ReceptiveField((1, 1), (1, 1), (0, 0))
    assert found["r2"] == ReceptiveField((5, 5), (1, 1), (0, 0))
    assert found["logits"] == ReceptiveField((None, None), (None, None), (None, None))


@pytest.mark.parametrize(
    "body",
    [
        "y = GlobalAveragePool(image)",
        "y = ReduceMean<keepdims=0>(image, axes)",
        "f = Flatten(image) y = Gemm<transB=1>(f, g)",
        "t = Transpose<perm=[0,1,3,2]>(image) y = MatMul(t, image)",
        "p = GlobalAveragePool(image) y = Mul(image, p)",
        "y = InstanceNormalization(image, s, s)",
    ],
)
def test_what_mixes_everything_sees_the_whole_image(body: str) -> None:
    found = _last(body, {"axes": np.array([2, 3]), "g": (4, 432), "s": (3,)})
    assert None in found.size


def test_patches_keep_their_size_when_they_become_tokens() -> None:
    body = """
        p = Conv<strides=[4,4]>(image, w) r = Reshape(p, shape) t = Transpose<perm=[0,2,1]>(r)
        n = LayerNormalization(t, s) y = MatMul(n, m)
    """
    weights = {"w": (8, 3, 4, 4), "shape": np.array([1, 8, 9]), "s": (8,), "m": (8, 5)}
    found = _last(body, weights)
    assert (found.size, found.stride) == ((4, 4), (None, None))
    mixed = body.replace("y = MatMul(n, m)", "k = Transpose<perm=[0,2,1]>(n) a = MatMul(n, k) y = MatMul(a, n)")
    assert _last(mixed, weights).size == (None, None)


def test_every_value_of_a_network_has_one() -> None:
    graph = fixed_shapes(residual_model())
    found = receptive_fields(graph)
    assert all(node.outputs[0] in found for node in graph.graph)
    assert all(dims(v) is not None for v in found)
