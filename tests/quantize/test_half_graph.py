import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from small_graphs import images, residual_model, run, sqnr_db

from edgecv.graph.opset import set_lowest_ir_version, upgrade_opset
from edgecv.quantize.half_graph import rewrite_to_half, value_types

TEST = images(2, seed=3)


def converted(half: ir.DataType, *kept: str) -> ir.Model:
    model = upgrade_opset(residual_model(), 22)
    floats = {name for name, kind in value_types(model).items() if kind == ir.DataType.FLOAT}
    rewrite_to_half(model, half, floats, kept)
    set_lowest_ir_version(model)
    return model


def test_types_are_those_onnx_runtime_infers() -> None:
    assert value_types(residual_model())["s"] == ir.DataType.FLOAT


@pytest.mark.parametrize(("half", "sqnr"), [(ir.DataType.FLOAT16, 50), (ir.DataType.BFLOAT16, 30)])
def test_every_node_computes_in_half_precision_and_the_interface_stays(half: ir.DataType, sqnr: float) -> None:
    model = converted(half)
    assert {
        v.dtype for v in model.graph.initializers.values() if v.dtype is not None and v.dtype.is_floating_point()
    } == {half}
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.FLOAT] * 2
    seen: dict[str, np.ndarray] = {}

    class Watching(ReferenceEvaluator):
        def _log(self, level: int, pattern: str, *args: object) -> None:
            if pattern == " + %s: %s":
                seen[str(args[0])] = args[1]  # type: ignore[assignment]

    answer = Watching(ir.to_proto(model)).run(None, {"image": TEST})[0]
    assert answer.dtype == np.float32
    assert sqnr_db(run(residual_model(), TEST), answer) > sqnr
    convolutions = [n.outputs[0].name for n in model.graph if n.op_type == "Conv"]
    assert {seen[str(name)].dtype for name in convolutions} == {half.numpy()}


def test_a_kept_node_computes_in_float32_between_casts() -> None:
    model = converted(ir.DataType.BFLOAT16, "Conv_4")
    conv = next(n for n in model.graph if n.name == "Conv_4")
    kinds = {v.dtype for v in conv.inputs if v is not None}
    assert kinds == {ir.DataType.FLOAT}
    assert conv.inputs[0].producer().op_type == "Cast"  # type: ignore[union-attr]
