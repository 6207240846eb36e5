from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.graph.fold_batch_norm import fold_batch_norm

RNG = np.random.default_rng(0)


def _norm_arrays(channels: int) -> dict[str, np.ndarray]:
    draw = {n: RNG.standard_normal(channels).astype(np.float32) for n in ("scale", "bias", "mean")}
    return draw | {"var": RNG.uniform(0.1, 2, channels).astype(np.float32)}


def _model(nodes: Sequence[onnx.NodeProto], arrays: dict[str, np.ndarray], shape: list[int], output: str) -> ir.Model:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


NORM = helper.make_node("BatchNormalization", ["h", "scale", "bias", "mean", "var"], ["y"], epsilon=1e-3)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("group", [1, 4])
def test_a_norm_behind_a_convolution_goes_into_its_weights(with_bias: bool, group: int) -> None:
    arrays = {"w": RNG.standard_normal((8, 4 // group, 3, 3)).astype(np.float32), **_norm_arrays(8)}
    inputs = ["x", "w"]
    if with_bias:
        arrays["b"] = RNG.standard_normal(8).astype(np.float32)
        inputs.append("b")
    model = _model([helper.make_node("Conv", inputs, ["h"], group=group), NORM], arrays, [2, 4, 6, 6], "y")
    x = RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)
    before = _run(model, x)
    assert fold_batch_norm(model) == 1
    assert [n.op_type for n in model.graph] == ["Conv"]
    np.testing.assert_allclose(_run(model, x), before, atol=1e-5)
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize("trans_b", [0, 1])
def test_a_norm_behind_a_gemm_goes_into_its_weights(trans_b: int) -> None:
    shape = (8, 4) if trans_b else (4, 8)
    arrays = {"w": RNG.standard_normal(shape).astype(np.float32), **_norm_arrays(8)}
    model = _model([helper.make_node("Gemm", ["x", "w"], ["h"], transB=trans_b), NORM], arrays, [3, 4], "y")
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    before = _run(model, x)
    assert fold_batch_norm(model) == 1
    np.testing.assert_allclose(_run(model, x), before, atol=1e-5)


def test_a_convolution_that_feeds_something_else_too_keeps_its_norm() -> None:
    arrays = {"w": RNG.standard_normal((4, 4, 1, 1)).astype(np.float32), **_norm_arrays(4)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), NORM, helper.make_node("Add", ["h", "y"], ["z"])]
    model = _model(nodes, arrays, [1, 4, 5, 5], "z")
    assert fold_batch_norm(model) == 0


def test_a_norm_before_the_convolution_stays() -> None:
    arrays = {"w": RNG.standard_normal((4, 4, 1, 1)).astype(np.float32), **_norm_arrays(4)}
    norm = helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["h"])
    model = _model([norm, helper.make_node("Conv", ["h", "w"], ["y"])], arrays, [1, 4, 5, 5], "y")
    assert fold_batch_norm(model) == 0
