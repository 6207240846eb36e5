"""Several looks at the same images."""

from functools import cache

import numpy as np
import pytest

from edgecv.evaluate.looks import pass_level
from edgecv.evaluate.statistics import LEVEL, paired_difference


def test_one_look_takes_the_usual_interval() -> None:
    assert pass_level(1, 1) == LEVEL


@pytest.mark.parametrize("most", [2, 3, 7])
def test_the_errors_of_all_looks_add_up_to_that_of_one(most: int) -> None:
    errors = [1 - pass_level(look, most) for look in range(1, most + 1)]
    assert sum(errors) == pytest.approx(1 - LEVEL)
    assert errors[0] == max(errors)


def test_seven_candidates_at_the_margin_pass_no_more_often_than_one_may() -> None:
    images, harmful, helpful, tries, most = 2000, 0.03, 0.02, 2000, 7
    rng = np.random.default_rng(0)

    @cache
    def upper(b: int, c: int, level: float) -> float:
        return paired_difference(b, c, images, level).upper

    def passes(flips: np.ndarray, corrected: bool) -> bool:
        levels = [pass_level(look, most) if corrected else LEVEL for look in range(1, most + 1)]
        pairs = zip(flips, levels, strict=True)
        return any(upper(int(b), int(c), level) <= harmful - helpful for (b, c, _), level in pairs)

    drawn = rng.multinomial(images, [harmful, helpful, 1 - harmful - helpful], size=(tries, most))
    allowed = (1 - LEVEL) / 2
    noise = 3 * np.sqrt(allowed * (1 - allowed) / tries)
    assert np.mean([passes(flips, corrected=True) for flips in drawn]) <= allowed + noise
    assert np.mean([passes(flips, corrected=False) for flips in drawn]) > 4 * allowed
