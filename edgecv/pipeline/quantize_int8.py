"""``edgecv quantize --int8``: the ladder on the user's images, with his gate, and what is measured along the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgecv.config.device import PORTABLE, load_device
from edgecv.data.dataset import Dataset
from edgecv.evaluate.looks import pass_level
from edgecv.evaluate.statistics import LEVEL
from edgecv.manifest import Manifest
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.mixed_precision import MIXED_IMAGES, Machine, mix_precision
from edgecv.pipeline.quantize_request import QuantizeRequest, input_batches
from edgecv.progress import Progress
from edgecv.quantize.basis import prepare_basis
from edgecv.quantize.calibrate import check_method
from edgecv.quantize.ladder import (
    FEWEST_TO_DIVIDE,
    NEAR_DB,
    RUNG_NAMES,
    Ground,
    Position,
    Rung,
    Step,
    check_rung,
    climb,
    divide,
    pick,
)
from edgecv.quantize.mixed import KeepFloat, parse_keep_float
from edgecv.quantize.rungs import RUNGS
from edgecv.quantize.sensitivity import SENSITIVITY_IMAGES
from edgecv.quantize.static import QuantizedModel, finish

if TYPE_CHECKING:
    from edgecv.pipeline.explain import Explanation

AUTO = "auto"

Judge = Callable[[QuantizedModel, float], dict[str, Any] | None]
"""Compares a quantized model with its original and returns the parity report; None when there are no images.

The number is the level of the interval that a PASS needs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A quantized model, its parity report, and for ``--explain`` where its error comes from."""

    quantized: QuantizedModel
    parity: dict[str, Any] | None
    explanation: "Explanation | None" = None


def quantize_int8(
    request: QuantizeRequest,
    model: ir.Model,
    manifest: Manifest,
    dataset: Dataset,
    judge: Judge,
    progress: Progress,
) -> Outcome:
    """Walk the ladder until the gate passes, or to the rung that ``request.method`` names.

    Without a gate, and where the gate cannot decide on the images it has, the goal is
    :data:`edgecv.quantize.ladder.NEAR_DB`. The rungs that cost time on the device or much time here (``mixed``,
    ``finetune``) are taken only when a gate fails for certain or when they are asked for.

    Raises:
        UsageError: Unknown rung or layer, or as :func:`edgecv.quantize.static.quantize_static`.
        EnvironmentRefusedError: ``finetune`` without PyTorch.
    """
    check_method(request.ranges)
    kept = parse_keep_float(request.keep_float)
    rungs, mixing = _rungs(request, kept)
    batches = input_batches(dataset, manifest)
    scheme = load_device(request.device).int8 if request.device else PORTABLE
    basis = prepare_basis(model, manifest, batches, exclude=kept.names, scheme=scheme, int8_heads=request.int8_heads)
    fit, held, n_fit = divide(batches, len(dataset))
    ground = Ground(basis, fit, held, n_fit, request.ranges, request.seed)
    judged: list[tuple[Position, QuantizedModel, dict[str, Any] | None]] = []  # the last one only
    looks = count(1)

    def good_enough(position: Position, sqnr_db: float) -> tuple[bool, str]:
        if request.method != AUTO or mixing.wanted or request.max_drop is None:
            return request.method == AUTO and not mixing.wanted and sqnr_db >= NEAR_DB, ""
        quantized = finish(position.draft, basis, {})
        parity = judge(quantized, pass_level(next(looks), len(rungs)))
        judged[:] = [(position, quantized, parity)]
        verdict = "" if parity is None else str(parity["verdict"])
        return verdict == "pass" or (verdict == "undecided" and sqnr_db >= NEAR_DB), verdict

    def worth(rung: str) -> bool:
        asked_for = rung in RUNGS or request.method != AUTO or mixing.wanted
        return asked_for or (bool(judged) and judged[0][2] is not None and judged[0][2]["verdict"] == "fail")

    position, steps = climb(ground, rungs, good_enough, worth=worth, progress=progress)
    if judged and judged[0][0] is position:
        _, quantized, parity = judged[0]
    else:
        quantized = finish(position.draft, basis, {})
        parity = judge(quantized, LEVEL)  # the only look
    quantized = _described(quantized, request, ground, len(dataset), steps, mixing.report)
    return Outcome(quantized, parity, _explain(request, ground, position, progress) if request.explain else None)


@dataclass(slots=True)
class _Mixing:
    """The mixed-precision rung: whether it was asked for, how many layers, and its report once it has run."""

    wanted: bool
    count: int | None
    report: dict[str, Any] | None = None


def _rungs(request: QuantizeRequest, kept: KeepFloat) -> tuple[dict[str, Rung], _Mixing]:
    """Return the rungs to try, in order."""
    mixing = _Mixing(kept.auto or kept.count is not None, kept.count)
    known: dict[str, Rung] = {**RUNGS, "mixed": _mixed_rung(request, mixing)}
    if request.method == "finetune" or (request.method == AUTO and request.max_drop is not None and find_spec("torch")):
        require_extra("train", "torch")
        known["finetune"] = _finetune_rung(pinned=request.method != AUTO)
    if request.method != AUTO:
        check_rung(request.method)
        last = RUNG_NAMES.index(request.method)
        chosen = {name for name in RUNG_NAMES[: last + 1] if name != "mixed" or request.method == "mixed"}
        return {n: r for n, r in known.items() if n in chosen or (n == "mixed" and mixing.wanted)}, mixing
    costly = {"mixed", "finetune"} if request.max_drop is not None else {"mixed"} if mixing.wanted else set()
    return {n: r for n, r in known.items() if n in RUNGS or n in costly}, mixing


def _mixed_rung(request: QuantizeRequest, mixing: _Mixing) -> Rung:
    def rung(ground: Ground, before: Position | None, progress: Progress) -> Position | None:
        assert before is not None  # another rung is the first
        draft, mixing.report = mix_precision(
            before.draft,
            before.own,
            pick(ground.batches, MIXED_IMAGES, ground.n_images),
            ground.basis.rewrites,
            count=mixing.count,
            machine=Machine(request.provider, request.threads, request.seed),
            progress=progress,
        )
        return None if draft is before.draft else replace(before, draft=draft)

    return rung


def _finetune_rung(*, pinned: bool) -> Rung:
    """Return the rung; a network that PyTorch cannot be taught is an error only when the rung was asked for."""

    def rung(ground: Ground, before: Position | None, progress: Progress) -> Position | None:
        from edgecv.nn.finetune import finetuned
        from edgecv.nn.graph_module import UntaughtOperatorError

        try:
            return finetuned(ground, before, progress)
        except UntaughtOperatorError:
            if pinned:
                raise
            return None

    return rung


def _described(
    quantized: QuantizedModel,
    request: QuantizeRequest,
    ground: Ground,
    n_all: int,
    steps: list[Step],
    mixed: dict[str, Any] | None,
) -> QuantizedModel:
    """Add to the summary how the model came about."""
    settings = {
        **quantized.summary["settings"],
        "device": request.device,
        "method": request.method,
        "rungs": [s.rung for s in steps if s.kept],
        "ranges": request.ranges,
        "keep_float": list(request.keep_float),
        "int8_heads": request.int8_heads,
        "kept_float": list(quantized.summary["kept_float"]),
        "images": ground.n_images,
        "held_out": len(ground.held) if ground.n_images < n_all else 0,
    }
    ladder = [s.as_dict() for s in steps]
    described = mixed if "mixed" in settings["rungs"] else None
    notes = [*quantized.summary["notes"], *_few_images(n_all)]
    summary = {**quantized.summary, "settings": settings, "ladder": ladder, "mixed": described, "notes": notes}
    return replace(quantized, summary=summary)


def _few_images(n_images: int) -> list[str]:
    """Return a warning when so few images calibrate that none is left to measure on."""
    if n_images >= FEWEST_TO_DIVIDE:
        return []
    return [
        f"warning: calibrated on {n_images} image{'s' * (n_images > 1)}: ranges fit these alone, and what a rung gains "
        f"is measured on them too; {FEWEST_TO_DIVIDE} would do (more in --data, a larger -n), 100 are customary"
    ]


def _explain(request: QuantizeRequest, ground: Ground, position: Position, progress: Progress) -> "Explanation":
    from edgecv.pipeline.explain import explain_draft

    return explain_draft(
        position.draft,
        position.own,
        pick(ground.batches, SENSITIVITY_IMAGES, ground.n_images),
        ground.basis.rewrites,
        machine=Machine(request.provider, request.threads, request.seed),
        progress=progress,
    )
