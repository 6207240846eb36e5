"""A short run of every target; the long one: ``PYTHONPATH=tests python -m fuzz.run TARGET --seconds 3600``."""

import os

import pytest
from fuzz.run import fuzz
from fuzz.targets import TARGETS

SECONDS = float(os.environ.get("EDGECV_FUZZ_SECONDS", "3"))


@pytest.mark.parametrize("target", TARGETS)
def test_changed_files_are_taken_or_refused_and_nothing_else(target: str) -> None:
    outcome = fuzz(target, SECONDS)
    assert {error for _, error in outcome.findings.values()} == set()
    assert outcome.taken > 0
    assert outcome.executions > outcome.taken or target == "session"
