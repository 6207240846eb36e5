from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import build_tiny_model, tiny_manifest
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.errors import UsageError
from edgecv.quantize.float16 import convert_float16

TEST = images(32, seed=3)


def test_weights_are_halved_and_input_and_output_stay(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    found = convert_float16(model, tiny_manifest())
    graph = found.model.graph
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == (ir.DataType.UINT8, ir.DataType.FLOAT)
    kinds = {v.const_value.dtype for v in graph.initializers.values() if v.const_value is not None}
    assert kinds == {ir.DataType.FLOAT16}
    assert found.summary["compared"]["n"] == 4
    assert found.summary["compared"]["sqnr_db"] > 50


def test_metadata_survives(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    assert convert_float16(model, tiny_manifest()).model.metadata_props == model.metadata_props


def test_the_answers_are_near_on_the_images_given() -> None:
    model = residual_model()
    found = convert_float16(model, MANIFEST, lambda: iter([TEST]))
    assert found.summary["compared"]["n"] == len(TEST)
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 50


def test_a_weight_beyond_float16_keeps_its_layer_in_float32() -> None:
    weight = np.float32(np.random.default_rng(0).standard_normal((8, 8, 1, 1)))
    weight[0, 0] = 1e6
    model = residual_model(w3=weight)
    found = convert_float16(model, MANIFEST, lambda: iter([TEST]))
    assert found.summary["kept_float"]["Conv_4"] == "weight of 1e+06"
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 40


def test_an_activation_beyond_float16_keeps_its_neighbours_in_float32() -> None:
    body = "a = Mul(image, big) c = Mul(a, small) f = Flatten(c) y = Gemm(f, v)"
    shapes: dict[str, object] = {"big": np.float32([3e4]), "small": np.float32([1e-4]), "v": (432, 5)}
    model = small_model(body, shapes)
    found = convert_float16(model, MANIFEST, lambda: iter([TEST * 5]))
    assert set(found.summary["kept_float"]) == {"Mul_0", "Mul_1"}
    assert np.isfinite(run(found.model, TEST * 5)).all()


def test_same_input_same_bytes_and_the_input_is_not_changed() -> None:
    model = residual_model()
    before = ir.to_proto(model).SerializeToString()
    first, second = (ir.to_proto(convert_float16(model, MANIFEST).model).SerializeToString() for _ in range(2))
    assert first == second
    assert ir.to_proto(model).SerializeToString() == before


def test_half_precision_and_unknown_nodes_are_refused() -> None:
    half = convert_float16(residual_model(), MANIFEST).model
    with pytest.raises(UsageError, match="float16 weights"):
        convert_float16(half, MANIFEST)
    with pytest.raises(UsageError, match="no node or layer 'conv'"):
        convert_float16(residual_model(), MANIFEST, exclude=("conv",))


def test_a_value_read_twice_in_float32_is_cast_once() -> None:
    body = "a = Relu(image) b = Mul(a, k) c = Mul(a, k) d = Add(b, c) f = Flatten(d) y = Gemm(f, v)"
    model = small_model(body, {"k": np.float32([2.0]), "v": (432, 5)})
    found = convert_float16(model, MANIFEST, exclude=("Mul_1", "Mul_2"))
    assert sum(n.op_type == "Cast" and n.inputs[0].name == "a" for n in found.model.graph) == 1  # type: ignore[union-attr]
