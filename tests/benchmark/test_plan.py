from pathlib import Path

import pytest

from edgecv.benchmark.plan import MAX_CANDIDATES, PRESETS, find_preset, plan_candidates
from edgecv.errors import UsageError
from edgecv.runtime.host import usable_cores

A, B = Path("a.onnx"), Path("b.onnx")


def test_models_to_be_compared_are_next_to_each_other() -> None:
    plan = plan_candidates([A, B], ["cpu", "cuda,cpu"], [1, 8], ["1"])
    assert [(c.model, c.provider, c.batch) for c in plan[:4]] == [
        (A, "cpu", 1), (B, "cpu", 1), (A, "cpu", 8), (B, "cpu", 8)
    ]  # fmt: skip
    assert len(plan) == 8


def test_auto_and_the_number_it_stands_for_are_timed_once() -> None:
    plan = plan_candidates([A], threads=["auto", str(usable_cores())])
    assert [c.threads for c in plan] == ["auto"]


def test_repeated_providers_and_batches_are_timed_once_but_a_model_may_be_compared_with_itself() -> None:
    plan = plan_candidates([A, A], ["cpu", "cpu"], [2, 2])
    assert [(c.model, c.batch) for c in plan] == [(A, 2), (A, 2)]


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", "4096", ""])
def test_thread_count_that_is_none_is_refused(threads: str) -> None:
    with pytest.raises(UsageError, match="neither auto nor a number"):
        plan_candidates([A], threads=[threads])


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(UsageError, match=f"more than {MAX_CANDIDATES}"):
        plan_candidates([A], batches=range(1, MAX_CANDIDATES + 2))


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'official'"):
        find_preset("oficial")


def test_every_preset_supports_an_interval_and_p90() -> None:
    from edgecv.benchmark.statistics import MIN_TURNS, min_samples

    for preset in PRESETS.values():
        assert preset.min_queries >= min_samples(90)
        assert preset.min_turns >= MIN_TURNS
    assert PRESETS["official"].min_queries >= 1024
    assert PRESETS["official"].min_seconds >= 60
