"""Pruning in several small steps, healed after each by the unpruned network."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from edgecv.config.distillation import DistillSettings
from edgecv.config.pruning import PruneSettings, parse_target, step_epochs
from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.files import sha256_file
from edgecv.nn.checkpoint import load_network, save_network
from edgecv.nn.distill.objective import healed_by
from edgecv.nn.meter import Meter
from edgecv.nn.network import Network
from edgecv.nn.pixels import normalize
from edgecv.nn.prune.latency import Trial, find_fast_choice
from edgecv.nn.prune.search import Units, find_choice
from edgecv.nn.prune.structured import Prunable, analyse
from edgecv.nn.prune.unstructured import apply_masks, hold_masks, make_masks, masks_of, sparsity
from edgecv.nn.size import Size, measure_size
from edgecv.nn.training import FitResult, fit
from edgecv.nn.training.placement import place
from edgecv.nn.training_data import TrainingData, evaluation_batches
from edgecv.progress import Progress, no_progress

CUT_FILE = "pruned.safetensors"
"""The network of a step before it is healed, in the step's folder: what a resumed run goes on with."""

TAYLOR_IMAGES = 1024
"""Images whose gradients Taylor scores are made of: more change the order of channels no further that matters."""


@dataclass(frozen=True, slots=True, eq=False)
class PruneRun:
    """One pruning and what it needs.

    Attributes:
        network: The unpruned, its ``stages`` naming this pruning already.
        settings: How far and by what.
        training: How it is healed; ``epochs`` over all steps together.
        data: Images to heal on; None: no healing.
        folder: The run folder, existing.
        meter: For ``latency``; else None.
        seed: Of everything random.
        resume: Go on with what lies in the folder.
        progress: See :mod:`edgecv.progress`.
        tell: Given a line for what the user should know at once.
        trials: What a search by latency measured, filled while it runs.
        aims: Shares of the unpruned network's MACs that were found fast enough, filled while it runs.
        left_alone: Layers that cannot be cut, filled while it runs.
    """

    network: Network
    settings: PruneSettings
    training: TrainSettings
    data: TrainingData | None
    folder: Path
    meter: Meter | None
    seed: int = 0
    resume: bool = False
    progress: Progress = no_progress
    tell: Callable[[str], None] = lambda line: None
    trials: list[Trial] = field(default_factory=list)
    aims: list[float] = field(default_factory=list)
    left_alone: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: the size it left, its share of zero weights, and its healing (None without data)."""

    number: int
    size: Size
    zeros: float
    healed: FitResult | None


def count_steps(settings: PruneSettings, training: TrainSettings, heals: bool) -> int:
    """Return the number of steps: as asked, or up to 3 as epochs allow; without healing there is nothing between."""
    if not heals or settings.nm:
        return 1
    steps = settings.steps or min(3, training.epochs)
    if steps > training.epochs:
        raise UsageError(f"--steps {steps} need an epoch of healing each; --epochs {training.epochs} are fewer.")
    return steps


def prune_in_steps(run: PruneRun) -> tuple[Network, list[Step]]:
    """Prune and heal; the healed steps and the artifact of the last lie in the run folder.

    Raises:
        UsageError: The target cannot be reached, the criterion needs data, or a setting does not fit.
    """
    steps = count_steps(run.settings, run.training, run.data is not None)
    epochs = step_epochs(run.training.epochs, steps)
    folders = [*(run.folder / f"step-{k}" for k in range(1, steps)), run.folder]
    first = max((k for k, f in enumerate(folders) if run.resume and (f / CUT_FILE).is_file()), default=0)
    network, done, whole = run.network, list[Step](), measure_size(run.network.module, run.network.input.input_size)
    for k in range(first, steps):
        folders[k].mkdir(exist_ok=True)
        file = folders[k] / CUT_FILE
        if not (run.resume and file.is_file()):
            save_network(file, _cut(run, network, whole, k + 1, steps))
        network = replace(load_network(file), source=run.network.source)
        _check_same_pruning(run.network, network, file)
        healed = None if run.data is None else _heal(run, network, folders[k], epochs[k])
        size = measure_size(network.module, network.input.input_size)
        done.append(Step(k + 1, size, sparsity(network.module)["share"], healed))
    if run.data is None:
        save_network(run.folder / "model.safetensors", network)
    return network, done


def _cut(run: PruneRun, network: Network, whole: Size, step: int, steps: int) -> Network:
    if run.settings.by_weight:
        network = replace(network, module=copy.deepcopy(network.module))
        apply_masks(network.module, make_masks(network.module, run.settings, step, steps, run.seed))
        return network
    prunable = analyse(network, run.settings, batches=_batches(run), seed=run.seed, progress=run.progress)
    run.left_alone.update(prunable.left_alone)
    target = parse_target(run.settings.to)
    measure, final = target.measure, target.share
    if measure == "latency":
        if step == steps:
            return prunable.cut(_fast_choice(run, prunable, whole))
        if not run.aims:
            _fast_choice(run, prunable, whole)
        measure, final = "macs", run.aims[-1]
    return _cut_to(prunable, measure, 1 - (1 - final) * step / steps, whole, str(target))


def _fast_choice(run: PruneRun, prunable: Prunable, whole: Size) -> Units:
    """Search by measuring; the share of MACs found counts from the unpruned network, which is what time is against."""
    assert run.meter is not None
    now = prunable.searched.sizer.whole.share_of(whole, "macs")
    start = min(1.0, run.aims[-1] / now) if run.aims else 0.0
    target = parse_target(run.settings.to)
    found, tried = find_fast_choice(prunable, target, run.meter, start=start, progress=run.progress)
    run.trials.extend(tried)
    run.aims.append(found.aim * now)
    return found.choice


def _cut_to(prunable: Prunable, measure: str, wanted: float, whole: Size, asked: str) -> Network:
    """Cut to a share of the unpruned network's measure."""
    now = prunable.searched.sizer.whole.share_of(whole, measure)
    if now <= wanted:  # widths are rounded: the step before went as far already
        return prunable.network
    return prunable.cut(find_choice(prunable.searched, measure, wanted / now, asked))


def _heal(run: PruneRun, network: Network, folder: Path, epochs: int) -> FitResult:
    assert run.data is not None
    settings = replace(run.training, epochs=epochs, warmup_epochs=min(run.training.warmup_epochs, epochs))
    teaching = DistillSettings(temperature=run.settings.temperature, teacher_weight=run.settings.teacher_weight)
    placement = place(settings)
    device = placement.device.type
    masks = masks_of(network.module) if run.settings.by_weight else {}
    handles = hold_masks(network.module, masks)
    try:
        return fit(
            network,
            run.data,
            settings,
            folder,
            objective=healed_by(run.network, teaching, device=device),
            seed=run.seed,
            resume=run.resume,
            identity={"pruned": sha256_file(folder / CUT_FILE), "healing": str(teaching)},
            progress=run.progress,
            tell=run.tell,
        )
    finally:
        for handle in handles:
            handle.remove()


def _batches(run: PruneRun) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised images with labels for Taylor's gradients."""
    if run.data is None:
        return
    spec = run.network.input
    for batch in evaluation_batches(run.data.train.limited(TAYLOR_IMAGES), spec, workers=0):
        yield normalize(batch.pixels, spec), batch.targets


def _check_same_pruning(asked: Network, found: Network, file: Path) -> None:
    """Raise UsageError when a step that lies in the folder was made with other settings."""
    now, then = (json.loads(json.dumps(n.stages[-1]["settings"], default=str)) for n in (asked, found))
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise UsageError(
            f"'{file}' was pruned with {key} {then.get(key)!r}, not {now.get(key)!r}; go on with the same, or start "
            "anew with --force."
        )
