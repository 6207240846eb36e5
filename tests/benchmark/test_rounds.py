from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecv.benchmark.plan import PRESETS, Preset
from edgecv.benchmark.rounds import Turns, WarmUp, plan_turns, run_rounds

PRESET = Preset("test", min_queries=10, min_seconds=0.001, max_seconds=10, min_turns=6, turn_ms=1, min_runs=2)


class FakeWorker:
    """Answers turns at once; every run "takes" ``run_ms``."""

    def __init__(self, name: str, run_ms: float, log: list[str]) -> None:
        self.name, self.run_ms, self.log = name, run_ms, log

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        assert do == "turn"
        self.log.append(self.name)
        runs = max(arguments["min_runs"], int(arguments["turn_ms"] / self.run_ms))
        return {"samples_ns": [int(self.run_ms * 1e6)] * runs, "cpu_seconds": 0.001, "involuntary_switches": 1}


def run(run_ms: list[float], preset: Preset = PRESET) -> tuple[list[Turns], list[str], int]:
    log: list[str] = []
    rounds: list[None] = []
    workers = [FakeWorker(chr(97 + i), ms, log) for i, ms in enumerate(run_ms)]
    warm = [WarmUp(9, 0.1, True, ms) for ms in run_ms]
    turns = run_rounds(workers, warm, preset, after_round=lambda: rounds.append(None))
    return turns, log, len(rounds)


def test_every_candidate_has_one_turn_a_round_and_the_order_rotates() -> None:
    _, log, rounds = run([0.5, 0.5, 0.5])
    assert rounds >= PRESET.min_turns
    cut = ["".join(log[i : i + 3]) for i in range(0, len(log), 3)]
    assert cut[:4] == ["abc", "bca", "cab", "abc"]
    assert len(cut) == rounds


def test_rounds_end_only_when_the_slowest_to_fill_its_quota_has() -> None:
    turns, _, _ = run([0.1, 5.0])
    assert all(len(t.all_ms) >= PRESET.min_queries for t in turns)
    assert len(turns[0].samples_ms) == len(turns[1].samples_ms)


def test_presets_reach_their_queries_and_seconds() -> None:
    for preset in (PRESETS["rapid"], PRESETS["quick"]):
        for turns in run([4.0, 30.0, 200.0], preset)[0]:
            assert len(turns.all_ms) >= preset.min_queries
            assert turns.all_ms.sum() / 1000 >= preset.min_seconds
            assert len(turns.samples_ms) >= preset.min_turns


def test_run_too_slow_for_the_preset_stops_at_its_longest_time_with_rounds_enough_for_an_interval() -> None:
    (turns,), _, _ = run([3000.0], PRESETS["rapid"])
    assert turns.all_ms.sum() / 1000 <= PRESETS["rapid"].max_seconds + 3
    assert len(turns.samples_ms) == 20


def test_quick_candidate_beside_a_slow_one_gets_longer_turns() -> None:
    (quick_ms, _), (_, slow_runs) = plan_turns([1.0, 200.0], PRESETS["rapid"])
    assert slow_runs == PRESETS["rapid"].min_runs
    assert quick_ms > PRESETS["rapid"].turn_ms


def test_progress_ends_at_a_hundred_percent() -> None:
    seen: list[tuple[str, int, int]] = []
    log: list[str] = []
    preset = replace(PRESET, min_turns=3)
    run_rounds([FakeWorker("a", 1.0, log)], [WarmUp(1, 0.1, True, 1.0)], preset, progress=lambda *a: seen.append(a))
    assert seen[0][1] == 0
    assert seen[-1][1:] == (100, 100)


def test_turns_give_samples_in_order_and_a_median_per_round() -> None:
    turns = Turns((np.array([1.0, 9.0, 2.0]), np.array([4.0])), 0.5, 3)
    assert turns.all_ms.tolist() == [1.0, 9.0, 2.0, 4.0]
    assert turns.medians_ms.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("run_ms", [0.005, 1.0, 400.0])
def test_one_run_a_turn_only_when_the_rounds_would_not_fit(run_ms: float) -> None:
    ((_, runs),) = plan_turns([run_ms], PRESETS["rapid"])
    assert runs == PRESETS["rapid"].min_runs
    ((_, runs),) = plan_turns([5000.0], PRESETS["rapid"])
    assert runs == 1
