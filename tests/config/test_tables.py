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
