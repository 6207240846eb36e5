import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecv.cli.main import main


def test_the_sheet_has_a_row_for_each_image_and_a_column_for_each_augmentation(
    color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets = {}
    for count, augment in ((2, "flip"), (4, "flip"), (4, "flip,gray:1")):
        out = tmp_path / f"{count}{len(augment)}.png"
        assert main(["data", "show", str(color_folder), "--augment", augment, "-n", str(count), "-o", str(out)]) == 0
        sheets[count, augment] = Image.open(out)
    two, four, more = sheets.values()
    assert two.width == four.width < more.width
    assert two.height < four.height == more.height
    assert "artifact:" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_sheet(color_folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, seed in zip(paths, ("1", "1", "2"), strict=True):
        assert main(["data", "show", str(color_folder), "--augment", "rotation", "-o", str(path), "--seed", seed]) == 0
    first, again, other = (np.asarray(Image.open(p)) for p in paths)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_unknown_name_gives_the_nearest(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(color_folder), "--augment", "crop,rotatoin"]) == 2
    assert "Did you mean 'rotation'" in capsys.readouterr().err


def test_an_existing_sheet_is_kept_without_force(
    color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    out.write_text("mine")
    assert main(["data", "show", str(color_folder), "-o", str(out)]) == 2
    assert out.read_text() == "mine"
    assert main(["data", "show", str(color_folder), "-o", str(out), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["augment"]["flip"] == 0.5
