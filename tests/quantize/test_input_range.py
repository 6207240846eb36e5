from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import build_tiny_model, tiny_manifest
from small_graphs import SPEC, residual_model

from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.input_range import input_ranges


def test_the_range_behind_the_preprocessing_is_that_of_all_pixels(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    found = input_ranges(model, ["normalised"], tiny_manifest().input)
    assert found["normalised"].low == pytest.approx(-1.0)
    assert found["normalised"].high == pytest.approx(1.0)


def test_with_equal_scales_every_pixel_has_a_code_of_its_own() -> None:
    affine = affine_of(Range(-127 / 128, 1.0))
    pixels = (np.arange(256) - 127) / 128
    codes = np.rint(pixels / float(affine.scale)) + affine.zero_point
    assert (codes == np.arange(256)).all()


def test_a_float_input_takes_its_range_from_mean_and_std() -> None:
    spec = replace(SPEC, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    found = input_ranges(residual_model(), ["image"], spec)["image"]
    assert found.low == pytest.approx(-2.5)
    assert found.high == pytest.approx(2.5)
