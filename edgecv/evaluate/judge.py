"""From counts to a verdict, and when counts may not give one: what the images cannot show, they cannot rule out.

A drop is measured through the labels, so labels that have nothing to do with the images, or a reference that knows
nothing, show no drop whatever the candidate does. Two conditions besides the interval stand before a PASS:

*The images could have shown a failure* (assay sensitivity). A candidate that only guesses loses the reference's
accuracy less :func:`chance_accuracy`. Where even the lower limit of that is not above the margin, a guessing
candidate could pass. Source: ICH E10, "Choice of Control Group" (2000), sections 1.5 and 1.5.1.1; FDA, "Non-Inferiority
Clinical Trials" (2016), section IV: the margin may not exceed M1, the effect of the active control that the trial is
sure to have, taken from the lower confidence limit.

*The labels settle the changes.* Where a decision changed and neither is right, a true label would say that nothing
was lost, a wrong label says nothing at all. With true labels such changes stand beside harmful and helpful ones; when
they are clearly more than half of all changes (Wilson's lower limit), the drop is judged a second time as if the
labels had settled them too, in the proportion of those they did settle (half a count added to each kind, so that none
of either decides nothing), and must be within the margin again. This can only turn a PASS into UNDECIDED. Source: the
tipping-point kind of sensitivity analysis for missing outcomes, ICH E9(R1) (2019), section A.5.2.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from edgecv.evaluate.statistics import LEVEL, Difference, decide, images_needed, paired_difference, wilson_interval
from edgecv.evaluate.tally import Tally


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with what it rests on.

    Attributes:
        verdict: ``pass``, ``fail`` or ``undecided``.
        reason: One sentence why.
        images_needed: How many images would decide; None when decided, or when more of the same images would not.
        difference: The drop with its interval; None without labels.
        chance: :func:`chance_accuracy`; None without labels.
    """

    verdict: str
    reason: str
    images_needed: int | None = None
    difference: Difference | None = None
    chance: float | None = None


def judge(tally: Tally, classes: int, margin: float, *, labelled: bool, pass_level: float = LEVEL) -> Judgement:
    """Judge a finished tally.

    Args:
        tally: Of all images, at least one.
        classes: Number of classes of the models; 0 when not known.
        margin: The largest acceptable drop, in percentage points.
        labelled: The images have labels.
        pass_level: Two-sided level of the interval that must be within the margin for a PASS, where these images are
            looked at more than once (:mod:`edgecv.evaluate.looks`); ``difference`` has the usual one.
    """
    n, changed = tally.images, tally.images - tally.same
    difference = paired_difference(tally.harmful, tally.helpful, n) if labelled else None
    chance = chance_accuracy(tally, classes) if labelled else None
    broken = {"reference": tally.not_finite_reference, "candidate": tally.not_finite_candidate}
    if any(broken.values()):
        where = " and ".join(f"{count} of {n} images of the {model}" for model, count in broken.items() if count)
        return Judgement("fail", f"NaN or infinite outputs on {where}", None, difference, chance)
    if difference is None or chance is None:
        needed = images_needed(changed - changed // 2, changed // 2, n, margin / 100)
        reason = f"without labels only agreement is known; about {needed} labelled images would decide"
        return Judgement("undecided", reason, needed)
    verdict, reason, wanted = _decide(tally, difference, chance, margin, pass_level)
    return Judgement(verdict, reason, wanted, difference, chance)


def chance_accuracy(tally: Tally, classes: int) -> float:
    """Return the reference's accuracy, 0..1, if its decisions had nothing to do with the labels.

    The larger of ``1 / classes`` and, where the images are of two or more classes, the accuracy expected when the
    labels are dealt out anew: ``sum over k of (share of label k) (share of decision k)``, which is high when one class
    has most of the images.

    Source:
        J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46: the agreement expected by chance.
    """
    labels = tally.per_class
    guessed = 1 / max(classes, len(labels), 1)
    if len(labels) < 2:
        return guessed
    return max(guessed, sum(count * tally.decided[label] for label, count in labels.items()) / tally.images**2)


def _decide(
    tally: Tally, difference: Difference, chance: float, margin: float, pass_level: float
) -> tuple[str, str, int | None]:
    """Return verdict, reason and images needed of labelled images with finite outputs."""
    verdict = decide(difference, margin / 100)
    limits = _limits(difference)
    if verdict == "fail":
        return verdict, f"the drop is more than {margin:g} points ({limits})", None
    blind = _blind(tally, chance, margin, interval_passes=verdict == "pass")
    if blind is not None:
        return "undecided", *blind
    if verdict == "undecided":
        needed = images_needed(tally.harmful, tally.helpful, tally.images, margin / 100)
        return verdict, f"{limits}, on both sides of {margin:g}; about {needed} images would decide", needed
    unsettled = _unsettled(tally, margin) or _not_sure_enough(tally, margin, pass_level)
    if unsettled is not None:
        return "undecided", *unsettled
    return verdict, f"the drop is at most {margin:g} points ({limits})", None


def _blind(tally: Tally, chance: float, margin: float, *, interval_passes: bool) -> tuple[str, int | None] | None:
    """Return reason and images needed when a candidate that only guesses could pass on these images."""
    n, right, least = tally.images, tally.right_before, chance + margin / 100
    lower, upper = wilson_interval(right, n)
    if lower > least or (upper > least and not interval_passes):  # the usual reason: more images serve both
        return None
    seen = f"the reference is right on {right} of {n} images ({lower:.1%} to {upper:.1%}), guessing on {chance:.1%}"
    if lower <= chance:
        advice = "check that its weights, its labels and the images' classes belong together, or use more images"
        return f"{seen}, so these images cannot show a drop; {advice}", None
    rate = right / n
    advice = "use a smaller margin"
    needed = None
    if rate > least:
        z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
        needed = max(math.ceil(rate * (1 - rate) * (z / (rate - least)) ** 2), n + 1)
        advice += f", or about {needed} images"
    return f"{seen}, so a candidate that only guesses might lose no more than {margin:g} points; {advice}", needed


def _unsettled(tally: Tally, margin: float) -> tuple[str, int] | None:
    """Return reason and images needed when the labels settle too few changes for a PASS; None when they do."""
    n, changed = tally.images, tally.images - tally.same
    b, c = tally.harmful, tally.helpful
    other = changed - b - c
    if wilson_interval(other, changed)[0] <= 0.5:
        return None
    harmful = b + math.ceil(other * (b + 0.5) / (b + c + 1))
    helpful = changed - harmful
    difference = paired_difference(harmful, helpful, n)
    if decide(difference, margin / 100) == "pass":
        return None
    needed = images_needed(harmful, helpful, n, margin / 100)
    reason = (
        f"{changed} of {n} decisions changed and the labels call both wrong on {other} of them; if those went like the "
        f"rest, the drop has a {_limits(difference)}, not within {margin:g}; check the labels, or use about {needed} "
        "images"
    )
    return reason, needed


def _not_sure_enough(tally: Tally, margin: float, level: float) -> tuple[str, int] | None:
    """Return reason and images needed when the drop is not within the margin at ``level``; None when it is."""
    b, c, n = tally.harmful, tally.helpful, tally.images
    difference = paired_difference(b, c, n, level)
    if decide(difference, margin / 100) == "pass":
        return None
    needed = images_needed(b, c, n, margin / 100, level)
    reason = (
        f"{_limits(difference, level)}, on both sides of {margin:g}: these images are looked at more than once, and "
        f"each look must be surer for all to be as sure as one; about {needed} images would decide"
    )
    return reason, needed


def _limits(difference: Difference, level: float = LEVEL) -> str:
    return f"{100 * level:.3g}% interval {100 * difference.lower:+.2f} to {100 * difference.upper:+.2f} points"
