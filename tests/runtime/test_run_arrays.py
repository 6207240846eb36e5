"""The far end of an emulated device, run here without one."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv.runtime import run_arrays
from edgecv.runtime.run_arrays import DONE, run_folder

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def job(folder: Path, model: Path) -> Path:
    for number, image in enumerate(IMAGES):
        np.save(folder / f"in-{number}.npy", image[None])
    asked = {"model": str(model), "input": "image", "output": "logits", "batches": len(IMAGES)}
    (folder / "job.json").write_text(json.dumps(asked))
    return folder


def test_every_batch_gets_an_answer_and_a_line(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder(job(tmp_path, tiny_model))
    answers = [np.load(tmp_path / f"out-{number}.npy") for number in range(3)]
    assert [a.shape for a in answers] == [(1, 3)] * 3
    assert not np.array_equal(answers[0], answers[1])
    assert capsys.readouterr().out.splitlines() == [f"{DONE}{n}" for n in (1, 2, 3)]
    assert json.loads((tmp_path / "answer.json").read_text()) == {"error": ""}


def test_a_model_that_does_not_load_is_an_answer(tmp_path: Path) -> None:
    broken = tmp_path / "no.onnx"
    broken.write_bytes(b"no model")
    run_folder(job(tmp_path, broken))
    assert json.loads((tmp_path / "answer.json").read_text())["error"]


def test_it_stops_when_its_parent_is_gone(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    monkeypatch.setattr(run_arrays.os, "getppid", lambda: next(parents))
    run_folder(job(tmp_path, tiny_model))
    assert (tmp_path / "out-0.npy").is_file()
    assert not (tmp_path / "out-1.npy").exists()
    assert not (tmp_path / "answer.json").exists()
