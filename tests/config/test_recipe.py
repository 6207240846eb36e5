from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.recipe import load_recipe
from edgecv.config.tables import shipped_files
from edgecv.errors import UsageError

FILES = sorted((REPOSITORY / "recipes").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_recipe_loads_and_names_a_real_network(path: Path) -> None:
    from edgecv.nn.models import check_name

    recipe = load_recipe(path.stem)
    check_name(recipe.export.model)
    assert recipe.name == path.stem
    assert path.stem in [p.stem for p in shipped_files("recipes")]


HEAD = 'schema = 1\nname = "x"\ntitle = "X"\n[export]\nmodel = "resnet18"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "[quantise]\n", "Did you mean 'quantize'"),
        (HEAD + '[quantize]\nmode = "int4"\n', "int4"),
        (HEAD + "[verify]\nmax_drop = 1\n", r"add \[quantize\]"),
        (HEAD + "[quantize]\n[verify]\nmax_drop = true\n", "max_drop"),
        (HEAD + "[quantize]\n[verify]\nmax_drop = inf\n", "finite"),
        ('schema = 1\nname = "x"\ntitle = "X"\n', "'export' is missing"),
        (HEAD.replace("schema = 1", "schema = 9"), "schema 9"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(str(path))
    assert "x.toml" in str(caught.value)
