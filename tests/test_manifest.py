import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import tiny_manifest

from edgecv import manifest
from edgecv.errors import UsageError


def test_a_manifest_survives_the_round_trip() -> None:
    made = tiny_manifest(
        calibration=("aa", "bb"),
        made_from={"file": "a.onnx", "sha256": "cc"},
        arguments={"num_classes": 3, "img_size": [32, 32]},
        structure=({"step": "prune", "modules": {"conv1": {"out_channels": 12}}},),
    ).with_stage("export", {"opset": 18}, {"edgecv": "0"})
    assert manifest.from_metadata(manifest.to_metadata(made), "a.onnx") == made


def test_other_tools_find_the_flat_keys() -> None:
    flat = manifest.to_metadata(tiny_manifest())
    assert json.loads(flat["names"]) == {"0": "red", "1": "green", "2": "blue"}
    assert json.loads(flat["imgsz"]) == [32, 32]
    assert {"description", "author", "version", "license", "task", "stride", "batch"} <= flat.keys()


def test_a_foreign_model_has_none() -> None:
    assert manifest.from_metadata({"producer": "other"}, "a.onnx") is None


def _edit(change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    raw = json.loads(manifest.to_metadata(tiny_manifest())[manifest.KEY])
    change(raw)
    return {manifest.KEY: json.dumps(raw)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema=99), "schema 99"),
        (lambda r: r.update(architcture="x"), "Did you mean 'architecture'"),
        (lambda r: r["input"].update(std=[0.0, 1.0, 1.0]), "std"),
        (lambda r: r["input"].update(mean=[float("nan")] * 3), "mean"),
        (lambda r: r["input"].update(mean=["a", "b", "c"]), "mean"),
        (lambda r: r["input"].update(input_size=[3, 0, 32]), "input_size"),
        (lambda r: r["input"].update(input_size=[3, 10**9, 32]), "input_size"),
        (lambda r: r["input"].update(interpolation="magic"), "interpolation"),
        (lambda r: r["input"].update(crop_pct="much"), "crop_pct"),
        (lambda r: r["output"].update(kind="boxes"), "boxes"),
        (lambda r: r["output"].update(labels=[1, 2]), "labels"),
        (lambda r: r["output"].update(labels="abc"), "labels"),
        (lambda r: r.update(input=[]), "input"),
        (lambda r: r.pop("output"), "output"),
        (lambda r: r.update(schema=-1), "schema"),
        (lambda r: r["input"].update(batch=-5), "batch"),
        (lambda r: r["input"].update(batch=10**9), "batch"),
        (lambda r: r["input"].update(std=[1e-320, 1.0, 1.0]), "std"),
        (lambda r: r["output"].update(labels=["\ud800", "b", "c"]), "surrogate"),
        (lambda r: r.update(calibration=[1]), "calibration"),
        (lambda r: r.update(made_from=3), "made_from"),
        (lambda r: r.update(arguments=[1]), "arguments"),
        (lambda r: r.update(structure={"step": "prune"}), "structure"),
        (lambda r: r.update(structure=["prune"]), "structure"),
    ],
)
def test_a_damaged_manifest_is_one_clear_error(change: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        manifest.from_metadata(_edit(change), "a.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "[" * 100_000])
def test_what_is_not_a_manifest_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"a\.onnx"):
        manifest.from_metadata({manifest.KEY: text}, "a.onnx")


def test_the_date_comes_only_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert manifest.created_now() == ""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert manifest.created_now() == "1970-01-01T00:00:00+00:00"
