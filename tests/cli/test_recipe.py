import json
from pathlib import Path

import pytest
from conftest import write_color_folder

from edgecv.cli.main import main
from edgecv.config.recipe import load_recipe


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_color_folder(tmp_path / "photos", per_class=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_recipe_loads_and_can_be_planned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--student", "dsnet", "--prune", "macs=0.5", "--factorize", "--device", "rpi5", "--seed", "3"]
    assert main(["recipe", "new", "lenet5", "--data", "photos", "-o", "mine.toml", *more]) == 0
    assert "edgecv run mine.toml --dry-run" in capsys.readouterr().out
    recipe = load_recipe("mine.toml")
    assert (recipe.name, recipe.model, recipe.data, recipe.device, recipe.seed) == (
        "mine",
        "lenet5",
        "photos",
        "rpi5",
        3,
    )
    stages = ("train", "distill", "prune", "factorize", "export", "quantize", "verify", "bench")
    assert recipe.stages == stages
    assert recipe.train is not None
    assert not recipe.train.pretrained  # nobody publishes weights of lenet5
    assert "6 images of 3 classes" in Path("mine.toml").read_text()
    assert main(["run", "mine.toml", "--dry-run", "--json"]) == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)["stages"]] == list(stages)


def test_published_weights_are_where_a_new_recipe_starts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "new", "tf_efficientnet_lite0", "--data", "photos", "-o", "mine.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pretrained"]
    assert load_recipe("mine.toml").train.pretrained


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["lenet6", "--data", "photos"], "lenet5"),
        (["lenet5", "--data", "nowhere"], "nowhere"),
        (["lenet5", "--data", "photos/red"], "classes"),
        (["lenet5", "--data", "photos", "-o", "mine.txt"], ".toml"),
        (["lenet5", "--data", "photos", "-o", "ä ö.toml"], "not a file name"),
        (["lenet5", "--data", "photos", "-o", "there.toml"], "--force"),
        (["lenet5", "--data", "photos", "--prune", "half"], "macs"),
        (["lenet5", "--data", "photos", "--device", "rpi6"], "rpi5"),
        (["lenet5"], "--data"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    place: Path, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "there.toml").write_text("precious")
    before = sorted(place.iterdir())
    assert main(["recipe", "new", *arguments]) == 2
    error = capsys.readouterr().err
    assert hint in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(place.iterdir()) == before
    assert (place / "there.toml").read_text() == "precious"
