from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from edgecv.graph.clean import flush_denormals, remove_dead_nodes, strip_metadata
from edgecv.graph.model_file import load_model
from edgecv.graph.values import add_initializer, make_node


def test_stack_traces_go_and_the_manifest_stays(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    node = model.graph.node("conv1")
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "somebody/train.py line 3"
    node.outputs[0].metadata_props["x"] = "somebody"
    before = dict(model.metadata_props)
    assert strip_metadata(model) == 1
    assert b"somebody" not in ir.to_proto(model).SerializeToString()
    assert dict(model.metadata_props) == before


def test_denormal_weights_become_zero_and_normal_ones_stay(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    value = model.graph.initializers["conv2.weight"]
    array = value.const_value.numpy().copy()  # type: ignore[union-attr]
    array[0, 0, 0, 0], array[0, 0, 0, 1] = 1e-40, 1.2e-38
    value.const_value = ir.tensor(array, name="conv2.weight")
    assert flush_denormals(model) == 1
    flushed = model.graph.initializers["conv2.weight"].const_value.numpy()  # type: ignore[union-attr]
    assert flushed[0, 0, 0, 0] == 0
    assert flushed[0, 0, 0, 1] == np.float32(1.2e-38)
    assert flush_denormals(model) == 0


def test_identities_and_what_nothing_uses_go_without_changing_the_answer(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    before = ort.InferenceSession(str(tiny_model)).run(None, {"image": x})[0]
    conv = model.graph.node("conv1")
    identity = make_node("Identity", [conv.outputs[0]], "same")
    dead = make_node("Relu", [conv.outputs[0]], "dead")
    model.graph.insert_after(conv, [identity, dead])
    model.graph.node("relu1").replace_input_with(0, identity.outputs[0])
    add_initializer(model.graph, "unused", np.zeros(3, np.float32))
    assert remove_dead_nodes(model) == 2
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    assert "unused" not in {i.name for i in proto.graph.initializer}
    after = ort.InferenceSession(proto.SerializeToString()).run(None, {"image": x})[0]
    np.testing.assert_array_equal(before, after)
