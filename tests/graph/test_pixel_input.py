import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common
from small_graphs import run

from edgecv.graph.pixel_input import normalize_in_first_conv

SIZE = 12
PIXELS = np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
LITE = (np.full(3, 127 / 255), np.full(3, 128 / 255))


def pixel_model(
    mean: np.ndarray,
    std: np.ndarray,
    *,
    kernel: int = 3,
    stride: int = 2,
    pads: tuple[int, ...] = (1, 1, 1, 1),
    size: int | str = SIZE,
    bias: bool = True,
    second_reader: bool = False,
    group: int = 1,
    conv: dict[str, object] | None = None,
) -> ir.Model:
    """uint8 (N, H, W, 3) → normalise → Conv of 8 channels → pool → (N, 8), as edgecv exports it."""
    rng = np.random.default_rng(0)
    arrays = {
        "scale": (1 / (255 * std)).astype(np.float32).reshape(1, 3, 1, 1),
        "shift": (-mean / std).astype(np.float32).reshape(1, 3, 1, 1),
        "w": rng.standard_normal((9 if group == 3 else 8, 3 // group, kernel, kernel)).astype(np.float32),
        "b": rng.standard_normal(9 if group == 3 else 8).astype(np.float32),
    }
    read = ["n", "w", "b"] if bias else ["n", "w"]
    attributes = {"pads": list(pads), "strides": [stride, stride], "group": group} | (conv or {})
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["s"]),
        helper.make_node("Add", ["s", "shift"], ["n"]),
        helper.make_node("Conv", read, ["c"], "stem", **attributes),
        helper.make_node("GlobalMaxPool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    if second_reader:
        nodes += [helper.make_node("GlobalMaxPool", ["n"], ["z"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "channels"])]
    if second_reader:
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3, 1, 1]))
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        outputs,
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def rewritten(model: ir.Model) -> ir.Model:
    changed = model.clone()
    assert normalize_in_first_conv(changed) == 1
    common.RemoveUnusedNodesPass()(changed)
    onnx.checker.check_model(ir.to_proto(changed), full_check=True)
    return changed


def constants(model: ir.Model, op_type: str) -> list[float]:
    """The single numbers that nodes of one kind hold."""
    held = [v.const_value for n in model.graph if n.op_type == op_type for v in n.inputs if v and v.const_value]
    return [float(t.numpy()) for t in held if t.size == 1]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0), (3, 3, 3, 3)])
@pytest.mark.parametrize("norm", [IMAGENET, LITE, (np.full(3, 0.5), np.full(3, 0.5))])
def test_the_answer_stays_the_same_to_the_last_border_pixel(
    norm: tuple[np.ndarray, np.ndarray], pads: tuple[int, ...], bias: bool
) -> None:
    model = pixel_model(*norm, pads=pads, bias=bias, conv={"dilations": [1, 1]})
    for images in (PIXELS, np.zeros_like(PIXELS), np.full_like(PIXELS, 255)):
        np.testing.assert_allclose(run(rewritten(model), images), run(model, images), atol=2e-5, rtol=2e-6)


def test_one_factor_and_one_integer_zero_point_are_left() -> None:
    changed = rewritten(pixel_model(*IMAGENET))
    (factor,), (shift,) = constants(changed, "Mul"), constants(changed, "Add")
    assert -shift / factor == pytest.approx(round(-shift / factor), abs=1e-4)


def test_a_common_integer_mean_needs_no_bias_and_no_weight_in_the_fourth_channel() -> None:
    changed = rewritten(pixel_model(*LITE, bias=False))
    (conv,) = (n for n in changed.graph if n.op_type == "Conv")
    weight = conv.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    assert weight.shape[1] == 4
    assert not weight[:, 3].any()
    assert len(conv.inputs) == 2


def test_patches_that_do_not_overlap_keep_three_channels() -> None:
    model = pixel_model(*IMAGENET, kernel=4, stride=4, pads=(0, 0, 0, 0))
    changed = rewritten(model)
    assert [n.op_type for n in changed.graph][:5] == ["Transpose", "Cast", "Mul", "Add", "Conv"]
    np.testing.assert_allclose(run(changed, PIXELS), run(model, PIXELS), atol=2e-5)


def test_any_image_size_is_served_without_a_fourth_channel_when_that_is_exact() -> None:
    model = pixel_model(*LITE, size="side")
    changed = rewritten(model)
    assert "Pad" not in {n.op_type for n in changed.graph}
    np.testing.assert_allclose(run(changed, PIXELS), run(model, PIXELS), atol=2e-5)
    assert normalize_in_first_conv(pixel_model(*IMAGENET, size="side")) == 0


@pytest.mark.parametrize(
    "options",
    [{"second_reader": True}, {"group": 3}, {"conv": {"auto_pad": "SAME_UPPER", "pads": [0, 0, 0, 0]}}],
    ids=["read twice", "grouped", "automatic padding"],
)
def test_what_cannot_be_rewritten_is_left_alone(options: dict[str, object]) -> None:
    model = pixel_model(*IMAGENET, **options)  # type: ignore[arg-type]
    before = ir.to_proto(model).SerializeToString()
    assert normalize_in_first_conv(model) == 0
    assert ir.to_proto(model).SerializeToString() == before


def test_a_float_input_is_left_alone() -> None:
    model = pixel_model(*IMAGENET)
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    assert normalize_in_first_conv(model) == 0
