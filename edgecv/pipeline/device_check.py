"""A model judged twice on the same images: on this machine and on an emulated one."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.data.batches import Batch
from edgecv.data.dataset import Dataset
from edgecv.evaluate.classifier import Classifier, iter_for_models, open_classifiers, open_for_model
from edgecv.evaluate.tally import Tally
from edgecv.evaluate.verdict import build_report
from edgecv.pipeline.emulated_run import run_emulated
from edgecv.pipeline.emulator import Emulator, check_cpu, find_emulator, parse_device
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts
from edgecv.runtime.preprocess import to_model_input

DEFAULT_IMAGES = 64
"""Images run on an emulated device unless told otherwise: each takes seconds."""

_AT_ONCE = 64  # images of one emulated process: they lie on disk meanwhile


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A candidate on an emulated device, beside the same file on this machine.

    Attributes:
        device: As named on the command line.
        emulator: Its version.
        n: Images.
        bit_equal: Every number of every answer is the same on both.
        images_different: Images whose answers differ.
        max_abs_diff: Largest difference of a score between the two; infinite where one is not finite.
        same_decision: Share of images that both decide alike.
        agreement_here: Share of images on which the candidate here decides as the reference.
        agreement_there: The same of the candidate there.
        sqnr_db_here: Signal to noise of the candidate's scores here against the reference; None when equal.
        sqnr_db_there: The same there.
        verdict: ``pass``, ``fail`` or ``undecided`` for the candidate there, from these images; the drop against the
            reference here.
        reason: One sentence why.
        host: Versions and machine.
    """

    device: str
    emulator: str
    n: int
    bit_equal: bool
    images_different: int
    max_abs_diff: float
    same_decision: float
    agreement_here: float
    agreement_there: float
    sqnr_db_here: float | None
    sqnr_db_there: float | None
    verdict: str
    reason: str
    host: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


@dataclass(slots=True)
class _Counts:
    here: Tally = field(default_factory=Tally)
    there: Tally = field(default_factory=Tally)
    different: int = 0
    same_decision: int = 0
    largest: float = 0.0


def check_device(device: str) -> tuple[Emulator, str]:
    """Return the emulator and the CPU of an emulated device.

    Raises:
        UsageError: No such device or CPU.
        EnvironmentRefusedError: This machine cannot emulate it.
        DeviceUnreachableError: The emulator is not set up.
    """
    cpu, emulator = parse_device(device), find_emulator()
    check_cpu(emulator, cpu)
    return emulator, cpu


def verify_on_device(
    reference: Path,
    candidate: Path,
    data: Path | Dataset,
    device: str,
    *,
    max_drop: float | None = None,
    threads: int | str = "auto",
    batch_size: int = 8,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> DeviceReport:
    """Run the candidate here and on an emulated CPU and compare both with the reference.

    Args:
        reference: ONNX file, taken as the truth; it runs here only.
        candidate: ONNX file.
        data: Images; a path is opened with the reference's labels.
        device: Such as ``qemu-x86:Haswell``.
        max_drop: See :func:`edgecv.evaluate.parity.verify_models`.
        threads: Intra-op threads here.
        batch_size: Images a run.
        limit: Use this many images, evenly spaced; :data:`DEFAULT_IMAGES` when None.
        seed: Recorded; nothing here is random.
        progress: Told after each batch.

    Raises:
        UsageError: What :func:`check_device` or :func:`edgecv.evaluate.parity.verify_models` refuses.
        DeviceUnreachableError: The emulator is not set up, or its process died.
    """
    emulator, cpu = check_device(device)
    first, second = open_classifiers([reference, candidate], "cpu", threads)
    models = first, second
    named = first if first.manifest.output.labels else second
    dataset, notes = open_for_model(data, named)
    dataset = dataset.limited(limit or DEFAULT_IMAGES)
    counts = _Counts()
    step = second.batch or batch_size
    stream = iter_for_models(dataset, models, step)
    while part := list(islice(stream, max(1, _AT_ONCE // step))):
        answers = _emulated(emulator, cpu, second, [pair[1] for pair in part], step, progress)
        for (ours, theirs), there in zip(part, answers, strict=True):
            _count(counts, models, ours, theirs, there)
    n = counts.here.images
    facts = host_facts(threads=first.session.threads, n=n, seed=seed)
    report = build_report(counts.there, models, named, dataset, max_drop=max_drop, leak=None, notes=notes, host=facts)
    return DeviceReport(
        device=device,
        emulator=f"qemu {emulator.version}",
        n=n,
        bit_equal=counts.different == 0,
        images_different=counts.different,
        max_abs_diff=counts.largest,
        same_decision=counts.same_decision / n,
        agreement_here=counts.here.same / n,
        agreement_there=counts.there.same / n,
        sqnr_db_here=counts.here.sqnr_db,
        sqnr_db_there=counts.there.sqnr_db,
        verdict=report.verdict,
        reason=report.reason,
        host=facts,
    )


def _emulated(
    emulator: Emulator, cpu: str, model: Classifier, batches: list[Batch], step: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Yield the emulated scores of each batch, float64 (N, classes)."""
    feeds = []
    for batch in batches:
        missing = step - len(batch.images) if model.batch else 0
        images = np.concatenate([batch.images, np.repeat(batch.images[-1:], missing, axis=0)])
        feeds.append(to_model_input(images, model.spec))
    names = model.spec.name, model.manifest.output.name
    for batch, output in zip(batches, run_emulated(emulator, cpu, model.path, names, feeds, progress), strict=True):
        yield output[: len(batch.images)].astype(np.float64)


def _count(
    counts: _Counts, models: tuple[Classifier, Classifier], ours: Batch, theirs: Batch, there: np.ndarray
) -> None:
    reference, here = models[0].scores(ours.images), models[1].scores(theirs.images)
    counts.here.add(models, (reference, here), ours.labels, ours.indices)
    counts.there.add(models, (reference, there), ours.labels, ours.indices)
    equal = ((here == there) | (np.isnan(here) & np.isnan(there))).all(axis=1)
    counts.different += int((~equal).sum())
    counts.same_decision += int((here.argmax(axis=1) == there.argmax(axis=1)).sum())
    if not equal.all():
        gap = np.abs(here[~equal] - there[~equal])
        counts.largest = max(counts.largest, float(gap.max()) if np.isfinite(gap).all() else float("inf"))
