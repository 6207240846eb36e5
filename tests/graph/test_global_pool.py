import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graph.global_pool import reduce_mean_to_global_pool


def _model(axes: list[int], keepdims: int, opset: int = 18, rank: int = 4) -> ir.Model:
    inputs, attributes, arrays = ["x"], {"keepdims": keepdims}, []
    if opset >= 18:
        inputs.append("axes")
        arrays.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
    else:
        attributes["axes"] = axes  # type: ignore[assignment]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", inputs, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 7][:rank])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "h", "w"][: 4 if keepdims else 2])],
        arrays,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_spatial_mean_becomes_a_global_pool_with_the_same_answer(opset: int, keepdims: int, axes: list[int]) -> None:
    model = _model(axes, keepdims, opset)
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
    assert reduce_mean_to_global_pool(model) == 1
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    assert "GlobalAveragePool" in {n.op_type for n in proto.graph.node}
    got = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, x.mean((2, 3), keepdims=bool(keepdims)), atol=1e-6)


@pytest.mark.parametrize(("axes", "rank"), [([1], 4), ([1, 2], 4), ([1, 2, 3], 4), ([1, 2], 3)])
def test_any_other_mean_stays(axes: list[int], rank: int) -> None:
    assert reduce_mean_to_global_pool(_model(axes, 1, rank=rank)) == 0


def test_two_means_in_one_graph_become_two_pools_of_different_names() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["m"], "first"),
            helper.make_node("Mul", ["x", "m"], ["s"], "scale"),
            helper.make_node("ReduceMean", ["s", "axes"], ["y"], "second"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    assert reduce_mean_to_global_pool(model) == 2
    assert len({n.name for n in model.graph}) == 3
    ort.InferenceSession(ir.to_proto(model).SerializeToString())
