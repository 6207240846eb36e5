"""The rungs of the ladder that need numpy and ONNX Runtime alone, each a position made from the one before."""

from collections.abc import Mapping
from dataclasses import replace

from edgecv.progress import Progress
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, observe_network
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import output_error, run_outputs, write_quantizers
from edgecv.quantize.empirical_bias import correct_biases_on_codes
from edgecv.quantize.equalize import equalize
from edgecv.quantize.ladder import Ground, Position, Rung, pick
from edgecv.quantize.order_channels import order_channels
from edgecv.quantize.placement import token_tensors
from edgecv.quantize.range_search import SEARCH_IMAGES, search_ranges
from edgecv.quantize.rounding import learn_rounding
from edgecv.quantize.weights import QuantizedWeight

BIAS_IMAGES = 16
"""All of them are in memory, in float and quantized."""


def per_channel(ground: Ground, before: Position | None, progress: Progress) -> Position:
    """Ranges from each tensor's own histogram, one weight scale a channel, analytic bias correction."""
    basis = ground.basis
    seen = observe_network(basis.model, basis.placement, ground.batches, n_images=ground.n_images, progress=progress)
    start = Position(basis.model, seen, None)  # type: ignore[arg-type]  # the draft is made in the next line
    tokens = token_tensors(basis.model, basis.placement)
    return _drafted(ground, start, {**basis.pixels, **ranges_of(seen, ground.ranges, tokens)}, progress)


def searched_ranges(ground: Ground, before: Position | None, progress: Progress) -> Position:
    """Ranges by the error they cause in the network's outputs."""
    assert before is not None
    return replace(_drafted(ground, before, _search(ground, before, progress), progress), searched=True)


def equalized(ground: Ground, before: Position | None, progress: Progress) -> Position | None:
    """Channels brought to like ranges; ranges chosen again, as they were before."""
    assert before is not None
    changed = equalize(before.own, ground.batches, n_images=ground.n_images, progress=progress)
    if not changed.groups:
        return None
    placement = before.draft.placement
    if ground.basis.portable:
        order_channels(changed.model)  # which weights are large has changed
    seen = observe_network(changed.model, placement, ground.batches, n_images=ground.n_images, progress=progress)
    moved = replace(before, own=changed.model, seen=seen)
    if before.searched:
        return _drafted(ground, moved, _search(ground, moved, progress), progress)
    tokens = token_tensors(changed.model, placement)
    return _drafted(ground, moved, {**ground.basis.pixels, **ranges_of(seen, ground.ranges, tokens)}, progress)


def biases_on_codes(ground: Ground, before: Position | None, progress: Progress) -> Position:
    """Biases corrected layer by layer on quantized inputs."""
    assert before is not None
    images = pick(ground.batches, BIAS_IMAGES, ground.n_images)
    draft = correct_biases_on_codes(before.draft, before.own, images, progress=progress)
    return replace(before, draft=draft, biases_on_codes=True)


def learned_rounding(ground: Ground, before: Position | None, progress: Progress) -> Position:
    """Weights rounded together, for the inputs the images give each layer; biases corrected again where it helps."""
    assert before is not None
    draft = before.draft
    weights = learn_rounding(
        before.own,
        draft.placement,
        draft.affines,
        ground.batches,
        n_images=ground.n_images,
        seed=ground.seed,
        portable=ground.basis.portable,
        progress=progress,
    )
    made = _drafted(ground, before, draft.ranges, progress, weights)
    if not before.biases_on_codes:
        return made
    corrected = biases_on_codes(ground, made, progress)
    images = pick(ground.batches, BIAS_IMAGES, ground.n_images)
    reference = run_outputs(ground.basis.model, images)
    errors = [output_error(reference, run_outputs(write_quantizers(p.draft)[0], images)) for p in (made, corrected)]
    return corrected if errors[1] < errors[0] else replace(made, biases_on_codes=False)


RUNGS: Mapping[str, Rung] = {
    "per-channel": per_channel,
    "ranges": searched_ranges,
    "equalize": equalized,
    "bias": biases_on_codes,
    "round": learned_rounding,
}
"""In order. Mixed precision needs times on a device and fine-tuning needs PyTorch: the pipeline adds them."""


def _search(ground: Ground, at: Position, progress: Progress) -> dict[str, Range]:
    images = pick(ground.batches, SEARCH_IMAGES, ground.n_images)
    tensors = at.draft.placement.observed
    return {**ground.basis.pixels, **search_ranges(at.own, tensors, at.seen, images, progress=progress)}


def _drafted(
    ground: Ground,
    at: Position,
    ranges: Mapping[str, Range],
    progress: Progress,
    weights: Mapping[str, QuantizedWeight] | None = None,
) -> Position:
    basis = ground.basis
    draft = draft_network(
        at.own, basis.placement, ranges, at.seen, weights=weights, scheme=basis.scheme, progress=progress
    )
    return replace(at, draft=draft)
