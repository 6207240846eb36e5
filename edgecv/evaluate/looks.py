"""How sure each of several looks at the same images must be, so that all of them together are as sure as one.

A search that judges candidate after candidate on the same images and stops at the first PASS has as many chances to
pass one that should fail. If candidate k may pass wrongly with probability a_k, then at least one of them does with
probability sum(a_k) at most, however they depend on each other; so it is enough that the a_k add up to the error of
one verdict. Half of it goes to the first look, where most searches end, and the rest is shared equally: with seven
looks the first PASS takes a 97.5 % interval instead of a 95 % one, which is 14 % wider, and a later one 99.6 %, 46 %
wider. A FAIL needs no correction: a search that goes on after it only fails if its last candidate does.

Source:
    O. J. Dunn, J. Am. Stat. Assoc. 56 (1961) 52-64, from Bonferroni's inequality, which holds for unequal shares too.
"""

from edgecv.evaluate.statistics import LEVEL

FIRST_SHARE = 0.5
"""Of the error of one verdict, for the first of several looks."""


def pass_level(look: int, most: int) -> float:
    """Return the two-sided level of the interval that a PASS at a look needs.

    Args:
        look: Which one, from 1.
        most: How many there may be.

    >>> [round(pass_level(look, 7), 4) for look in (1, 2, 7)]
    [0.975, 0.9958, 0.9958]
    """
    if most == 1:
        return LEVEL
    share = FIRST_SHARE if look == 1 else (1 - FIRST_SHARE) / (most - 1)
    return 1 - (1 - LEVEL) * share
