"""Every command and every Python block of the README runs, in the order a reader would type them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_color_folder

from edgecv.cli.main import main
from edgecv.data.samples import sample_halves

README = (REPOSITORY / "README.md").read_text()

CLASSES = {"astronaut": "n04266014", "coffee": "n07920052", "motorcycle_left": "n03791053", "flower": "n11939491"}
"""Sample photograph -> the ImageNet class nearest to what it shows."""

UNDECIDED = 4
"""A handful of photographs decides nothing: what verify and a recipe's gate must say of them."""


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    calibration, evaluation = sample_halves()
    for path in calibration:
        (tmp_path / "photos/calib").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "photos/calib")
    for path in evaluation:
        folder = tmp_path / "photos/eval" / CLASSES[path.stem]
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    from PIL import Image

    Image.open(evaluation[0]).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_readme_does_what_it_says(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_job, _, more = (block.strip().splitlines() for block in _blocks("sh"))
    for line in main_job:
        _run(line.replace("--int8 --data photos/calib", "--int8 --data photos/calib --no-bench"), capsys)
    for code in _blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    for line in more:
        _run(line.replace("-n 8", "-n 2"), capsys)


@pytest.mark.slow
def test_the_way_from_a_big_network_to_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_color_folder(tmp_path / "photos/train", size=32)
    monkeypatch.chdir(tmp_path)
    little = "--epochs 1 --input-size 32 --batch 6 --threads 1 --workers 0 --precision float32"
    for line in _blocks("sh")[1].strip().splitlines():
        _run(re.sub(r"--epochs \d+", little, line), capsys)


def _run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(line)
    assert program == "edgecv"
    expected = UNDECIDED if arguments[0] in ("verify", "run") and "--dry-run" not in arguments else 0
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == expected, f"{line}: exit {code}\n{captured.err}"
    assert captured.out.strip()


def test_the_recipe_of_the_readme_loads(tmp_path: Path) -> None:
    from edgecv.config.recipe import STAGES, load_recipe

    (tmp_path / "mine.toml").write_text(_blocks("toml")[0])
    assert load_recipe(str(tmp_path / "mine.toml")).stages == (
        "train",
        "prune",
        "export",
        "quantize",
        "verify",
        "bench",
    )
    assert f"runs {' → '.join(STAGES)}," in README
    for path in (REPOSITORY / "recipes").iterdir():
        assert f"`{path.stem}`" in README


def test_every_extra_the_readme_names_exists() -> None:
    import tomllib

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"edgecv\[([a-z,-]+)\]", README):
        assert set(names.split(",")) <= extras.keys()
    clash = {"onnxruntime", "onnxruntime-gpu"}
    for name, requirements in extras.items():
        owners = {re.split(r"[><=\[]", r)[0] for r in requirements} & clash
        assert len(owners) <= 1, name


def test_every_exit_code_is_documented() -> None:
    from edgecv import errors

    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.EdgecvError)}
    for code in codes | {errors.EXIT_BUG, errors.EXIT_INTERRUPTED}:
        assert f"| {code} |" in README
