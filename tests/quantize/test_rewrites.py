from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import build_tiny_model, tiny_manifest
from small_graphs import images, residual_model, run

from edgecv.config.device import FULL_RANGE
from edgecv.errors import UsageError
from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize import rewrites
from edgecv.quantize.rewrites import check_rewrites, images_to_check, relative_diff, rewrite_codes, rewrite_float
from edgecv.quantize.static import quantize_static

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)


def halve_first_weight(model: ir.Model) -> int:
    """A rewrite that is wrong."""
    conv = next(n for n in model.graph if n.op_type == "Conv")
    conv.replace_input_with(1, add_initializer(model.graph, "half", constant_array(conv.inputs[1]) / 2))  # type: ignore[operator]
    return 1


def nudge_first_weight(model: ir.Model) -> int:
    """A rewrite that changes nothing that can be seen."""
    conv = next(n for n in model.graph if n.op_type == "Conv")
    conv.replace_input_with(
        1, add_initializer(model.graph, "near", constant_array(conv.inputs[1]) * np.float32(1 + 1e-6))
    )  # type: ignore[operator]
    return 1


def test_a_wrong_rewrite_is_undone_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "FLOAT_REWRITES", {"wrong": halve_first_weight, "right": nudge_first_weight})
    model = residual_model()
    before = run(model, images())
    changed, found = rewrite_float(model, images(4), ("wrong", "right"))
    assert [(r.name, r.kept) for r in found] == [("wrong", False), ("right", True)]
    assert found[0].relative_diff > found[1].relative_diff
    assert "near" in changed.graph.initializers
    assert "half" not in changed.graph.initializers
    np.testing.assert_allclose(run(changed, images()), before, rtol=1e-4, atol=1e-4)


def test_codes_may_not_move_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "CODE_REWRITES", {"wrong": nudge_first_weight})
    monkeypatch.setattr(rewrites, "CODE_BOUNDS", {"wrong": 0.0})
    model, (found,) = rewrite_codes(residual_model(), images(4), ("wrong",))
    assert not found.kept
    assert 0 < found.relative_diff < 1e-4
    assert "near" not in model.graph.initializers


def test_quantize_reports_what_each_rewrite_did(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    found = quantize_static(model, tiny_manifest(), lambda: iter([PIXELS]))
    rows = {r["name"]: r for r in found.summary["rewrites"]}
    assert set(rows) == {"normalize_in_first_conv", "order_channels", "use_pixels_as_codes"}
    assert all(r["kept"] and r["places"] == 1 for r in rows.values())
    free = quantize_static(model, tiny_manifest(), lambda: iter([PIXELS]), scheme=FULL_RANGE)
    assert {r["name"] for r in free.summary["rewrites"]} == {"normalize_in_first_conv", "use_pixels_as_codes"}
    assert rows["use_pixels_as_codes"]["relative_diff"] == 0
    assert found.summary["coverage"]["quantize"] == 0
    plain = quantize_static(model, tiny_manifest(), lambda: iter([PIXELS]), rewrites=())
    assert plain.summary["rewrites"] == []
    assert plain.summary["coverage"]["quantize"] == 1


def test_an_excluded_first_convolution_keeps_its_input(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    found = quantize_static(model, tiny_manifest(), lambda: iter([PIXELS]), exclude=("conv1",))
    assert {r["name"] for r in found.summary["rewrites"]} <= {"order_channels"}
    assert found.summary["coverage"]["conv_float"] == 1


def test_an_unknown_rewrite_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'pad_depthwise' is not one of.*pad_depthwise_channels"):
        check_rewrites(("pad_depthwise",))
    assert check_rewrites(None) == (*rewrites.FLOAT_REWRITES, *rewrites.IMAGE_REWRITES, *rewrites.CODE_REWRITES)


def test_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match="no image to calibrate with"):
        images_to_check(lambda: iter([]))


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    model.graph.inputs[0].shape = ir.Shape([3, 32, 32, 3])
    changed, found = rewrite_float(model, PIXELS[:2], ("normalize_in_first_conv",))
    assert [r.kept for r in found] == [True]
    assert run(changed, PIXELS[:3]).shape == (3, 3)


@pytest.mark.parametrize(
    ("before", "after", "diff"),
    [
        (np.array([0.0, 2.0]), np.array([0.0, 2.0]), 0.0),
        (np.array([0.0, 2.0]), np.array([0.5, 2.0]), 0.5),
        (np.array([1.0, 1.0]), np.array([1.0, 1.1]), np.inf),
        (np.array([0.0, 2.0]), np.array([np.nan, 2.0]), np.inf),
        (np.array([0.0, 2.0]), np.array([0.0]), np.inf),
    ],
)
def test_a_change_is_measured_in_standard_deviations(before: np.ndarray, after: np.ndarray, diff: float) -> None:
    assert relative_diff(before, after) == diff
