import numpy as np
import onnx_ir as ir
from small_graphs import residual_model, small_model

from edgecv.graph.shapes import dims, fixed_shapes, value_bytes


def _shapes(model: ir.Model) -> list[tuple[int, ...] | None]:
    return [dims(node.outputs[0]) for node in model.graph]


def test_the_batch_is_fixed_in_a_copy() -> None:
    model = residual_model()
    fixed = fixed_shapes(model, batch=3)
    assert _shapes(fixed)[0] == (3, 8, 12, 12)
    assert _shapes(fixed)[-1] == (3, 5)
    assert not isinstance(model.graph.inputs[0].shape[0], int)  # type: ignore[index]


def test_what_the_file_says_of_another_batch_is_not_believed() -> None:
    model = residual_model()
    next(iter(model.graph)).outputs[0].shape = ir.Shape([7, 8, 12, 12])
    assert _shapes(fixed_shapes(model))[0] == (1, 8, 12, 12)


def test_what_onnx_cannot_infer_is_read_off_a_run() -> None:
    model = small_model("a = Relu(image) b = com.microsoft.QuickGelu(a) y = Relu(b)", {}, outputs=("float y",))
    model.opset_imports["com.microsoft"] = 1
    fixed = fixed_shapes(model)
    assert _shapes(fixed) == [(1, 3, 12, 12)] * 3
    assert value_bytes(fixed.graph.outputs[0]) == 4 * 3 * 144


def test_a_free_image_leaves_shapes_unknown() -> None:
    model = residual_model()
    model.graph.inputs[0].shape = ir.Shape(["n", 3, "h", "w"])
    assert _shapes(fixed_shapes(model))[0] is None


def test_four_bit_codes_take_half_a_byte() -> None:
    value = ir.Value(name="v", type=ir.TensorType(ir.DataType.INT4), shape=ir.Shape([3, 3]))
    assert value_bytes(value) == int(np.ceil(9 / 2))
