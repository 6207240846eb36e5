from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import build_tiny_model, tiny_manifest
from onnx_ir.passes import common
from small_graphs import MANIFEST, images, run, small_model

from edgecv.graph.values import add_initializer
from edgecv.quantize.code_shortcuts import scale_codes_once, use_pixels_as_codes
from edgecv.quantize.static import quantize_static

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)


def pixel_model(tmp_path: Path, rewrites: tuple[str, ...]) -> ir.Model:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    return quantize_static(model, tiny_manifest(), lambda: iter([PIXELS]), rewrites=rewrites).model


def input_scale(model: ir.Model) -> ir.Node:
    return next(n for n in model.graph if n.op_type == "QuantizeLinear")


def test_pixels_become_the_codes_bit_for_bit(tmp_path: Path) -> None:
    model = pixel_model(tmp_path, ("normalize_in_first_conv",))
    before = run(model, PIXELS)
    assert use_pixels_as_codes(model) == 1
    common.RemoveUnusedNodesPass()(model)
    assert not {n.op_type for n in model.graph} & {"Cast", "Mul", "Add"}
    np.testing.assert_array_equal(run(model, PIXELS), before)


def test_a_zero_point_between_two_pixel_values_is_not_the_same_codes(tmp_path: Path) -> None:
    model = pixel_model(tmp_path, ())
    before = ir.to_proto(model).SerializeToString()
    assert use_pixels_as_codes(model) == 0, "(pixel - 127.5) / 127.5 rounds to other codes"
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("change", ["scale", "zero point"])
def test_one_code_out_of_256_that_differs_is_enough_to_refuse(tmp_path: Path, change: str) -> None:
    model = pixel_model(tmp_path, ("normalize_in_first_conv",))
    node = input_scale(model)
    index, factor = (1, 1.01) if change == "scale" else (2, None)
    held = node.inputs[index].const_value.numpy()  # type: ignore[union-attr]
    other = np.float32(held * factor) if factor else np.uint8(held + 1)
    node.replace_input_with(index, add_initializer(model.graph, "other", np.asarray(other)))
    assert use_pixels_as_codes(model) == 0


BODY = """
    a = Conv(image, w, b) m = Mul(a, k) c = Conv(m, w, b)
    g = GlobalAveragePool(c) f = Flatten(g) y = Gemm(f, v)
"""
SHAPES: dict[str, object] = {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)}


def scaled(number: float, rewrites: tuple[str, ...] = ()) -> ir.Model:
    model = small_model(BODY, SHAPES | {"k": np.array(number, np.float32)})
    return quantize_static(model, MANIFEST, lambda: iter([images(24)]), rewrites=rewrites).model


@pytest.mark.parametrize("number", [0.25, 1 / 6, 3.0])
def test_a_factor_moves_into_the_scale(number: float) -> None:
    model = scaled(number)
    before = run(model, images())
    assert scale_codes_once(model) == 1
    common.RemoveUnusedNodesPass()(model)
    assert "Mul" not in {n.op_type for n in model.graph}
    np.testing.assert_allclose(run(model, images()), before, atol=0.02 * before.std())


@pytest.mark.parametrize("number", [-0.5, 0.0])
def test_a_factor_that_no_scale_can_be_stays(number: float) -> None:
    assert scale_codes_once(scaled(number)) == 0


def test_a_product_of_two_tensors_stays() -> None:
    body = BODY.replace("m = Mul(a, k)", "q = Conv(image, w, b) m = Mul(a, q)")
    model = quantize_static(small_model(body, SHAPES), MANIFEST, lambda: iter([images(24)]), rewrites=()).model
    assert scale_codes_once(model) == 0
