from pathlib import Path

import pytest

from edgecv.errors import UsageError
from edgecv.graph import opset
from edgecv.graph.model_file import load_model


@pytest.mark.parametrize(
    ("version", "limits"), [("1.14", (18, 8)), ("1.17.3", (20, 9)), ("1.19.2", (21, 10)), ("1.31.1", (23, 11))]
)
def test_a_runtime_reads_up_to_the_opset_it_was_released_with(version: str, limits: tuple[int, int]) -> None:
    assert opset.limits_of(version) == limits


@pytest.mark.parametrize("version", ["", "new", "1", "1.x", "1.2"])
def test_an_unknown_runtime_version_is_named(version: str) -> None:
    with pytest.raises(UsageError, match=f"'?{version}"):
        opset.limits_of(version)


def test_the_lowest_ir_version_that_the_opset_allows_is_written(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    model.ir_version = 12
    opset.set_lowest_ir_version(model)
    assert model.ir_version == 8


def test_a_target_that_cannot_read_the_opset_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="reads up to 7"):
        opset.set_lowest_ir_version(load_model(tiny_model), limit=7)


def test_an_old_model_is_converted_and_keeps_its_manifest(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    before = dict(model.metadata_props)
    upgraded = opset.upgrade_opset(model, 21)
    assert opset.default_opset(upgraded) == 21
    assert dict(upgraded.metadata_props) == before
    assert opset.upgrade_opset(upgraded, 13) is upgraded
