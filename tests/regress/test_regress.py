"""Every input that once broke something, named ``TARGET-HASH``, through its target of tests/fuzz."""

from pathlib import Path

import pytest
from fuzz.targets import run_target

HERE = Path(__file__).parent
FOUND = sorted(p for p in HERE.iterdir() if "-" in p.name)


@pytest.mark.parametrize("path", FOUND, ids=lambda p: p.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    run_target(path.name.partition("-")[0], path.read_bytes())
