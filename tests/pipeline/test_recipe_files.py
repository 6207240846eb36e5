"""Every file in recipes/ can be planned from a fresh folder; digits runs in test_demo.py."""

from pathlib import Path

import pytest
from conftest import REPOSITORY, write_color_folder

from edgecv.cli.main import main
from edgecv.config.recipe import load_recipe

FILES = sorted((REPOSITORY / "recipes").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_recipe_can_be_planned(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = load_recipe(path.stem)
    images = []
    if not recipe.data.startswith("package:"):
        data, judged = (
            write_color_folder(tmp_path / "data"),
            write_color_folder(tmp_path / "judged", per_class=2, seed=1),
        )
        trains = recipe.train or recipe.distill
        images = ["--data", str(data)] if trains else ["--calib", str(data)]
        images += ["--eval", str(judged)] if recipe.eval_data or not trains else []
    if recipe.distill and recipe.distill.teacher:
        teacher = Path(recipe.distill.teacher)
        assert main(["run", path.stem, *images, "--dry-run"]) == 2
        assert str(teacher) in capsys.readouterr().err
        assert load_recipe(teacher.parent.name).train is not None  # the recipe that makes it
        teacher.parent.mkdir(parents=True)
        teacher.write_bytes(b"weights")
    assert main(["run", path.stem, *images, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in recipe.stages)
    assert not (tmp_path / "runs" / recipe.name).exists()


def test_a_plan_without_its_images_says_which_option_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "lite0-int8", "--dry-run"]) == 2
    assert "--calib" in capsys.readouterr().err
    assert main(["run", "fine-tune", "--dry-run"]) == 2
    assert "'photos'" in capsys.readouterr().err
