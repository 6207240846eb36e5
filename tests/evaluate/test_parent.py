import shutil
from pathlib import Path

import pytest
from conftest import build_tiny_model

from edgecv.errors import UsageError
from edgecv.evaluate.parent import choose_pair
from edgecv.files import sha256_file
from edgecv.workspace import set_current_model


@pytest.fixture
def child(tiny_model: Path) -> Path:
    made_from = {"file": tiny_model.name, "sha256": sha256_file(tiny_model)}
    return build_tiny_model(tiny_model.with_name("child.onnx"), noise=0.01, made_from=made_from)


def test_one_model_is_compared_with_its_parent(tiny_model: Path, child: Path) -> None:
    assert choose_pair([child]) == (tiny_model, child)


def test_no_model_means_the_current_one(tiny_model: Path, child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(child.parent)
    set_current_model(child)
    assert [p.resolve() for p in choose_pair([])] == [tiny_model.resolve(), child.resolve()]


def test_two_models_are_taken_as_given(tmp_path: Path) -> None:
    assert choose_pair([tmp_path / "a", tmp_path / "b"]) == (tmp_path / "a", tmp_path / "b")


def test_a_model_without_a_record_asks_for_both(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="does not record"):
        choose_pair([tiny_model])


def test_a_parent_that_is_gone_or_changed_is_told(tiny_model: Path, child: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    with pytest.raises(UsageError, match="not beside it"):
        choose_pair([Path(shutil.copy(child, alone))])
    build_tiny_model(tiny_model, noise=0.5)
    with pytest.raises(UsageError, match="has changed"):
        choose_pair([child])


def test_a_parent_is_looked_for_beside_the_model_only(tiny_model: Path, tmp_path: Path) -> None:
    made_from = {"file": f"../{tiny_model.name}", "sha256": "0" * 64}
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(UsageError, match=r"made from 'tiny\.onnx', which is not beside it"):
        choose_pair([build_tiny_model(inner / "x.onnx", made_from=made_from)])
