from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from conftest import tiny_manifest
from onnx import TensorProto, helper

from edgecv.errors import UsageError
from edgecv.graph.interface import append_softmax, name_interface, only_image_input, set_uint8_input
from edgecv.manifest import InputSpec
from edgecv.runtime.preprocess import to_model_input

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _identity(shape: list[object], elem_type: int = TensorProto.FLOAT) -> ir.Model:
    """``y = relu(x) - relu(-x)``: the identity, with two users of the input."""
    nodes = [
        helper.make_node("Neg", ["x"], ["m"]),
        helper.make_node("Relu", ["m"], ["n"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Sub", ["r", "n"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("y", elem_type, shape)],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_graph_normalises_as_numpy_does(layout: str) -> None:
    shape: list[object] = ["batch", 3, 6, 5] if layout == "NCHW" else ["batch", 6, 5, 3]
    model = _identity(shape)
    spec = InputSpec("x", (3, 6, 5), MEAN, STD, layout=layout, dtype="float32")
    name_interface(model)
    set_uint8_input(model, spec)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    got = ort.InferenceSession(proto.SerializeToString()).run(None, {"image": pixels})[0]
    np.testing.assert_allclose(got, to_model_input(pixels, spec), atol=2e-6)


def test_softmax_makes_probabilities_of_the_logits(tiny_model: Path) -> None:
    from edgecv.graph.model_file import load_model

    model = load_model(tiny_model)
    append_softmax(model)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    assert session.get_outputs()[0].name == "probabilities"
    output = session.run(None, {"image": np.zeros((2, 32, 32, 3), np.uint8)})[0]
    np.testing.assert_allclose(output.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [["n", 3, 4], ["n", 4, 8, 8], ["n", 1, 28, 28]])
def test_what_is_not_a_batch_of_rgb_images_is_refused(shape: list[object]) -> None:
    with pytest.raises(UsageError, match="'x'"):
        only_image_input(_identity(shape))


def test_a_double_input_is_refused() -> None:
    with pytest.raises(UsageError, match="float32"):
        set_uint8_input(_identity(["n", 3, 4, 4], TensorProto.DOUBLE), tiny_manifest().input)
