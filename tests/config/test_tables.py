from pathlib import Path

import pytest

from edgecv.config import tables
from edgecv.errors import UsageError


@pytest.mark.parametrize(
    "text",
    ["a = ", "a = [" + "[" * 5000, "a = '\xff'", "\x00", "a=1\na=2"],
    ids=["cut", "deep", "bytes", "nul", "twice"],
)
def test_what_is_not_toml_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"x\.toml"):
        tables.read_table(path, "recipe")


def test_an_unknown_name_shows_the_nearest_and_the_known() -> None:
    with pytest.raises(UsageError, match="Did you mean 'rpi5'"):
        tables.find_shipped("devices", "rpi6")


def test_a_path_is_taken_as_it_is() -> None:
    assert tables.find_shipped("devices", "some/where.toml") == Path("some/where.toml")


def read(folder: Path, text: str) -> dict[str, object]:
    path = folder / "x.toml"
    path.write_text(text)
    return tables.read_table(path, "recipe")


def test_size_at_the_limit_and_above(tmp_path: Path) -> None:
    comment = "#" * (tables.MAX_TOML_BYTES - 6)
    assert read(tmp_path, f"a = 1\n{comment}") == {"a": 1}
    with pytest.raises(UsageError, match="over the limit of 262144"):
        read(tmp_path, f"a = 1\n{comment}#")


def test_nesting_at_the_limit_and_above(tmp_path: Path) -> None:
    deepest = tables.MAX_NESTING
    read(tmp_path, f"a = {'[' * deepest}{']' * deepest}")
    with pytest.raises(UsageError, match="deeper than 64"):
        read(tmp_path, f"a = {'[' * (deepest + 1)}{']' * (deepest + 1)}")


@pytest.mark.parametrize("form", ["{key} = 1", "[{key}]", "a = {{ {key} = 1 }}"])
def test_parts_of_a_key_at_the_limit_and_above(tmp_path: Path, form: str) -> None:
    parts = [f"k{i}" for i in range(tables.MAX_KEY_PARTS)]
    read(tmp_path, form.format(key=".".join(parts)))
    with pytest.raises(UsageError, match="100 dots or more"):
        read(tmp_path, form.format(key=".".join([*parts, "k"])))


def test_dots_in_comments_and_lists_of_numbers_do_not_count(tmp_path: Path) -> None:
    assert read(tmp_path, f"# {'.' * 500}\na = [{'0.5, ' * 500}]") == {"a": [0.5] * 500}
