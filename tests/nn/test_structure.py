import sys
from collections.abc import Mapping
from typing import Any

import pytest
from torch import Tensor, nn

from edgecv.errors import UsageError
from edgecv.nn import structure
from edgecv.nn.networks import build_own


def widen(module: nn.Module, step: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    return nn.Sequential(module, nn.Linear(step["width"], len(state["head"])))


@pytest.fixture(autouse=True)
def step_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(structure.STEPS, "widen", "steps_of_the_test:widen")
    monkeypatch.setitem(sys.modules, "steps_of_the_test", sys.modules[__name__])


def test_steps_are_replayed_in_order_with_the_state() -> None:
    steps = [{"step": "widen", "width": 4}, {"step": "widen", "width": 2}]
    module = structure.replay(nn.Linear(3, 4), steps, {"head": [0, 0]})  # type: ignore[dict-item]
    assert [m.in_features for m in module.modules() if isinstance(m, nn.Linear)] == [3, 4, 2]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"step": "widne"}, "Did you mean 'widen'"),
        ({"step": "widen"}, r"edit 1 \('widen'\).*width"),
        ({"step": "widen", "width": "a"}, "does not fit"),
    ],
)
def test_a_step_that_cannot_be_made_is_one_clear_error(step: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        structure.replay(nn.Linear(3, 4), [step], {"head": [0]}, "a.safetensors")  # type: ignore[dict-item]


COMPLETE: dict[str, Any] = {"step": "depthwise", "norm": "batch", "act": "relu", "modules": {}, "separable": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "magic"}, "incomplete"),
        ({"act": "os.system"}, "incomplete"),
        ({"separable": ["fc"]}, "no plain convolution"),
        ({"separable": ["nowhere"]}, "nowhere"),
        ({"modules": {"nowhere": {}}}, "nowhere"),
        ({"modules": {"conv1": {"weight": 3}}}, "does not have"),
        ({"modules": {"conv1": {"out_channels": 10**9}}}, "out_channels"),
        ({"modules": {"conv1": {"out_channels": -1}}}, "out_channels"),
        ({"modules": {"conv1": {"out_channels": 2.5}}}, "out_channels"),
        ({"modules": {"conv1": {"groups": 2}}}, "divide"),
        ({"modules": {"conv1": 3}}, "does not have"),
        ({"modules": [1]}, "incomplete"),
    ],
)
def test_a_hostile_depthwise_step_is_one_clear_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        structure.replay(build_own("residual20", {}), [{**COMPLETE, **change}], {}, "a.safetensors")
