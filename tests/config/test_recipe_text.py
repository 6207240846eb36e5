import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.flat import flat_fields
from edgecv.config.recipe import STAGES, Recipe, build_recipe, load_recipe
from edgecv.config.recipe_text import recipe_text

FILES = sorted((REPOSITORY / "recipes").iterdir())


def _read(text: str) -> Recipe:
    return build_recipe(tomllib.loads(text), "here")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_written_recipe_reads_back_without_change(path: Path) -> None:
    recipe = load_recipe(path.stem)
    text = recipe_text(recipe, ["A heading", ""])
    assert _read(text) == recipe
    assert recipe_text(_read(text), ["A heading", ""]) == text


def test_every_key_is_there_with_its_help() -> None:
    table = {
        "name": "x", "model": "lenet5", "train": {}, "distill": {"student": "dsnet"}, "prune": {"to": "macs=0.5"},
        "factorize": {}, "export": {}, "quantize": {}, "verify": {}, "eval": {}, "bench": {},
    }  # fmt: skip
    recipe = build_recipe(table, "here")
    assert recipe.stages == tuple(STAGES)
    lines = recipe_text(recipe).splitlines()
    for stage, cls in STAGES.items():
        begin = lines.index(f"[{stage}]") + 1
        block = lines[begin : begin + len(flat_fields(cls))]
        for (key, field), line in zip(flat_fields(cls).items(), block, strict=True):
            assert line.removeprefix("# ").startswith(f"{key} = ")
            assert line.endswith(f"# {field.metadata['help']}")


@pytest.mark.parametrize("title", ['"', "\\", "\n\t\x7f", "é 漢 🙂", "'''", '"""', "# no comment", "\x00\x1b[31m"])
def test_any_text_survives(title: str) -> None:
    recipe = replace(load_recipe("digits"), title=title)
    assert _read(recipe_text(recipe)) == recipe


def test_numbers_and_lists_survive() -> None:
    train = {"learning_rate": 1e-7, "weight_decay": 0.1, "step_epochs": [3, 5], "augment": ["flip", "rotation:15"]}
    recipe = build_recipe({"name": "x", "model": "lenet5", "train": train}, "here")
    assert _read(recipe_text(recipe)) == recipe
