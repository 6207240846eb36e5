from collections.abc import Iterator

import numpy as np
import pytest
from small_graphs import MANIFEST, images, residual_model

from edgecv.errors import UsageError
from edgecv.progress import Progress
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, prepare_basis
from edgecv.quantize.ladder import Ground, Position, Rung, check_rung, climb, divide, pick, top1_agreement
from edgecv.quantize.rungs import per_channel

DATA = images(40)


def batches() -> Iterator[np.ndarray]:
    return iter(np.array_split(DATA, 7))


def ground() -> Ground:
    fit, held, count = divide(batches, len(DATA))
    return Ground(prepare_basis(residual_model(), MANIFEST, fit), fit, held, count)


def with_ranges(factor: float) -> Rung:
    """A rung that multiplies every range but the image's: far from 1 it does harm."""

    def rung(on: Ground, before: Position | None, progress: Progress) -> Position:
        at = per_channel(on, before, progress)
        ranges = {n: r if n in on.basis.pixels else _times(r, factor) for n, r in at.draft.ranges.items()}
        return Position(at.own, at.seen, draft_network(at.own, on.basis.placement, ranges, at.seen))

    return rung


def _times(span: Range, factor: float) -> Range:
    return Range(span.low * factor, span.high * factor)


def never(position: Position, sqnr_db: float) -> tuple[bool, str]:
    return False, ""


def test_a_rung_is_kept_only_when_it_gains_on_images_no_rung_has_seen() -> None:
    rungs = {"coarse": with_ranges(50), "good": with_ranges(1), "harm": with_ranges(0.1)}
    position, steps = climb(ground(), rungs, never)
    assert [s.kept for s in steps] == [True, True, False]
    assert steps[0].gain_db is None
    assert steps[1].gain_db is not None
    assert steps[1].gain_db > 10
    assert steps[2].gain_db is not None
    assert steps[2].gain_db < 0
    image = ground().basis.placement.from_input[0]
    kept = next(s for n, s in position.draft.ranges.items() if n != image)
    assert kept.high < 100


def test_the_climb_ends_where_it_is_good_enough() -> None:
    asked: list[float] = []

    def enough(position: Position, sqnr_db: float) -> tuple[bool, str]:
        asked.append(sqnr_db)
        return sqnr_db > 25, "pass" if sqnr_db > 25 else "fail"

    rungs = {"coarse": with_ranges(50), "good": with_ranges(1), "never tried": with_ranges(1)}
    _, steps = climb(ground(), rungs, enough)
    assert [(s.rung, s.verdict) for s in steps] == [("coarse", "fail"), ("good", "pass")]
    assert asked == [s.sqnr_db for s in steps]


def test_a_rung_that_is_not_worth_its_time_is_passed_over() -> None:
    rungs = {"coarse": with_ranges(50), "dear": with_ranges(1)}
    _, steps = climb(ground(), rungs, never, worth=lambda rung: rung != "dear")
    assert [s.rung for s in steps] == ["coarse"]


def test_a_rung_with_nothing_to_do_says_so() -> None:
    rungs: dict[str, Rung] = {"good": with_ranges(1), "idle": lambda on, before, progress: None}
    _, steps = climb(ground(), rungs, never)
    assert (steps[1].kept, steps[1].sqnr_db, steps[1].gain_db) == (False, None, None)


def test_measuring_images_and_calibrating_images_are_apart_and_are_all() -> None:
    fit, held, count = divide(batches, len(DATA))
    fitted = np.concatenate(list(fit()))
    assert len(fitted) == count == 32
    assert len(held) == 8
    together = np.concatenate([fitted, held]).reshape(len(DATA), -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(DATA.reshape(len(DATA), -1), axis=0))


def test_many_images_leave_a_bounded_number_to_measure() -> None:
    many = np.repeat(DATA, 30, axis=0)
    _, held, count = divide(lambda: iter(np.array_split(many, 11)), len(many))
    assert len(held) <= 32
    assert count == len(many) - len(held)


def test_few_images_calibrate_and_measure() -> None:
    fit, held, count = divide(lambda: iter([DATA[:5]]), 5)
    assert len(held) == count == 5
    assert len(next(fit())) == 5


def test_picked_images_are_spread_over_the_pass() -> None:
    found = pick(batches, 4, len(DATA))
    assert np.array_equal(found, DATA[[0, 10, 20, 30]])


def test_agreement_is_of_the_first_output_with_classes() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert top1_agreement([scores], [scores[:, ::-1]]) == 0.0
    assert top1_agreement([scores[:, :1]], [scores[:, :1]]) is None


def test_an_unknown_rung_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"'equalise' is not one of per-channel, .*equalize"):
        check_rung("equalise")
