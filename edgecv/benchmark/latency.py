"""Time one or several candidates, interleaved, each in its own process."""

import datetime
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.benchmark.child import Child, Patience
from edgecv.benchmark.noise import Noise, NoiseWatch
from edgecv.benchmark.plan import Candidate, Preset, find_preset, plan_candidates
from edgecv.benchmark.profile import Profile, read_profile
from edgecv.benchmark.report import BenchReport, describe
from edgecv.benchmark.results import Measured, end_to_end_figures, make_results
from edgecv.benchmark.rounds import run_rounds, warm_up
from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts
from edgecv.runtime.providers import parse_providers

PROFILE_RUNS = 20
END_TO_END_IMAGES = 200
_MAX_PROFILE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Extras:
    """What to measure beside latency.

    Attributes:
        images: Photographs to use as inputs and for decode → label; none: random inputs.
        profile: Time by operator and layer, in a further process (profiling slows a run down).
    """

    images: tuple[Path, ...] = ()
    profile: bool = False


def compare_latency(
    models: Sequence[Path],
    *,
    provider: str = "cpu",
    threads: str = "auto",
    preset: str | Preset = "rapid",
    batch: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> BenchReport:
    """Time models against the first of them on this machine.

    Args:
        models: ONNX files; the first is the reference of ``result.speedup``.
        provider: Policy, see :mod:`edgecv.runtime.providers`.
        threads: Intra-op threads: a number, or ``auto``.
        preset: ``rapid``, ``quick``, ``official``, or one of your own.
        batch: Images per run.
        seed: Of the random inputs and of the resampling.
        progress: Told what is going on.

    Returns:
        The report; ``report.verdicts`` says in words which is faster, ``report.results[1].speedup`` by how much.

    Raises:
        UsageError: A model cannot be read or run with this batch.
        EnvironmentRefusedError: The provider cannot be had here, or a model's process died or hung.
    """
    chosen = find_preset(preset) if isinstance(preset, str) else preset
    return run_benchmark(plan_candidates(models, [provider], [batch], [threads]), chosen, seed=seed, progress=progress)


def run_benchmark(
    candidates: Sequence[Candidate],
    preset: Preset,
    *,
    seed: int = 0,
    extras: Extras | None = None,
    patience: Patience | None = None,
    progress: Progress = no_progress,
) -> BenchReport:
    """Time every candidate; the first is the reference. See :func:`compare_latency`."""
    if not candidates:
        raise UsageError("no model to time; name one.")
    for policy in {c.provider for c in candidates}:
        parse_providers(policy)
    extras = extras or Extras()
    files = {c.model: _file_facts(c.model) for c in candidates}
    with ExitStack() as stack:
        children = []
        for i, candidate in enumerate(candidates):
            progress("loading", i, len(candidates))
            children.append(stack.enter_context(Child(candidate, _job(candidate, seed, extras), patience)))
        progress("loading", len(candidates), len(candidates))
        measured, noise = _time_children(children, preset, extras, progress)
    profiles = [profile_candidate(c, seed, extras, patience) if extras.profile else None for c in candidates]
    results = make_results(candidates, measured, profiles, files, noise, seed)
    verdict, verdicts = describe(results)
    return BenchReport(
        results=results,
        preset=preset,
        seed=seed,
        noise=noise,
        host=host_facts(threads=sorted({r.threads for r in results}), n=sum(r.n for r in results), seed=seed),
        measured_at=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        verdict=verdict,
        verdicts=verdicts,
    )


def _time_children(
    children: Sequence[Child], preset: Preset, extras: Extras, progress: Progress
) -> tuple[list[Measured], Noise]:
    warm_ups = []
    for i, child in enumerate(children):
        progress("warming up", i, len(children))
        warm_ups.append(warm_up(child, preset))
    progress("warming up", len(children), len(children))
    watch = NoiseWatch([child.pid for child in children])
    turns = run_rounds(children, warm_ups, preset, after_round=watch.sample, progress=progress)
    noise = watch.finish()
    measured = []
    for child, warm, taken in zip(children, warm_ups, turns, strict=True):
        peak = child.ask("memory")["peak_rss_mib"]  # before decoding adds its own
        pipeline = None
        if extras.images:
            seconds = preset.min_seconds * 5
            pipeline = end_to_end_figures(
                child.ask("end_to_end", expected_s=seconds, min_images=END_TO_END_IMAGES, max_seconds=seconds)
            )
        measured.append(Measured(child.facts, warm, taken, peak, pipeline))
    return measured, noise


def _job(candidate: Candidate, seed: int, extras: Extras, **more: Any) -> dict[str, Any]:
    return {
        "model": str(candidate.model),
        "provider": candidate.provider,
        "batch": candidate.batch,
        "threads": candidate.threads,
        "seed": seed,
        "images": [str(p) for p in extras.images],
        **more,
    }


def profile_candidate(
    candidate: Candidate, seed: int, extras: Extras | None = None, patience: Patience | None = None
) -> Profile:
    """Run a candidate under ONNX Runtime's profiler in a process of its own; see :func:`run_benchmark`."""
    extras = extras or Extras()
    with tempfile.TemporaryDirectory(prefix="edgecv-profile-") as folder:
        job = _job(candidate, seed, extras, profile_prefix=str(Path(folder) / "ort"))
        with Child(candidate, job, patience) as child:
            run_s = max(child.facts["first_run_ms"] / 1000, 1e-6)
            runs = max(2, min(PROFILE_RUNS, int(_MAX_PROFILE_SECONDS / run_s)))
            file = child.ask("profile", expected_s=runs * run_s * 10, runs=runs)["profile"]
            return read_profile(Path(file))


def _file_facts(path: Path) -> tuple[str, int]:
    """Return (SHA-256, size in bytes with external weights); reading it also puts it into the page cache."""
    size = check_regular_file(path, "model", MAX_MODEL_BYTES)
    weights = path.with_name(f"{path.name}.data")
    return sha256_file(path), size + (weights.stat().st_size if weights.is_file() else 0)
