from pathlib import Path

import pytest

from edgecv import workspace
from edgecv.errors import UsageError


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_last_artifact_is_the_current_model() -> None:
    Path("a.onnx").touch()
    Path("b.onnx").touch()
    workspace.set_current_model(Path("a.onnx"))
    workspace.set_current_model(Path("b.onnx").resolve())
    assert workspace.current_model() == Path("b.onnx")


def test_an_empty_folder_says_how_to_make_one() -> None:
    with pytest.raises(UsageError, match="edgecv export"):
        workspace.current_model()


def test_a_model_that_is_gone_is_named() -> None:
    workspace.set_current_model(Path("gone.onnx"))
    with pytest.raises(UsageError, match=r"gone\.onnx"):
        workspace.current_model()


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"model": 3}', "{}"])
def test_a_damaged_record_is_named(text: str) -> None:
    Path(".edgecv").mkdir()
    Path(".edgecv/current").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        workspace.current_model()


def test_a_folder_that_cannot_remember_says_so_and_is_no_error() -> None:
    Path(".edgecv").write_text("in the way")
    assert "not remembered" in workspace.set_current_model(Path("a.onnx"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model": "' + "x" * 5000 + '"}'])
def test_a_hostile_record_is_named(text: str) -> None:
    Path(".edgecv").mkdir()
    Path(".edgecv/current").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        workspace.current_model()
