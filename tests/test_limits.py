"""The table of limits in ARCHITECTURE.md says what the code does."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from edgecv.errors import MAX_MESSAGE, UsageError
from edgecv.manifest import KEY, MAX_MANIFEST_BYTES, from_metadata

TEXT = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| ([\d,]+)(?: ([KMG]i)B?)? \| `([\w.]+)\.(\w+)` \|$", TEXT, re.M)
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("number", "unit", "module", "name"), ROWS, ids=[row[3] for row in ROWS])
def test_a_limit_is_what_the_table_says(number: str, unit: str, module: str, name: str) -> None:
    if module.startswith("nn."):  # without loading torch
        source = (Path(__file__).parent.parent / "edgecv" / f"{module.replace('.', '/')}.py").read_text()
        (value,) = re.findall(rf"^{name} = (.+)$", source, re.M)
        found = eval(value, {})
    else:
        found = getattr(import_module(f"edgecv.{module}"), name)
    assert found == int(number.replace(",", "")) * UNITS[unit]


def test_a_manifest_at_the_limit_and_above() -> None:
    text = "[" + " " * (MAX_MANIFEST_BYTES - 2) + "]"
    with pytest.raises(UsageError, match="schema None"):
        from_metadata({KEY: text}, "m")
    with pytest.raises(UsageError, match="is over 8388608 bytes"):
        from_metadata({KEY: text + " "}, "m")


def test_a_message_at_the_limit_and_above() -> None:
    assert str(UsageError("x" * MAX_MESSAGE)) == "x" * MAX_MESSAGE
    longer = str(UsageError("file " + "x" * 5000 + " add --trust"))
    assert len(longer) == MAX_MESSAGE
    assert longer.startswith("file x")
    assert longer.endswith("x add --trust")
    assert str(UsageError("a\nb\x1b[31m\udcffc")) == "a\\nb\\x1b[31m\\udcffc"
