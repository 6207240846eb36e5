"""``edgecv bench``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.options import Debug, Force, Json, Output, Quiet, Seed, Trust
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.benchmark.report import BenchReport
    from edgecv.progress import Progress


def bench(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX files, reference first; default: the current model and its origin."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option("--provider", help="cpu, cuda, …; 'cuda,cpu' is a fallback; may be repeated."),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="Images per run, e.g. 1 or 1,8.")] = "1",
    threads: Annotated[str, typer.Option("--threads", help="Intra-op threads, e.g. auto or 1,2,auto.")] = "auto",
    preset: Annotated[
        str, typer.Option("--preset", help="rapid (6 s a candidate), quick (10 s), official (60 s).")
    ] = "rapid",
    profile: Annotated[bool, typer.Option("--profile", help="Time by operator and layer as well.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Photographs as inputs; times decode → label as well.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Time there: a profile with a connection ('edgecv devices list').")
    ] = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Time models on this machine or a device, interleaved, each in its own process; ratios with intervals."""
    from edgecv.benchmark.latency import Extras, run_benchmark
    from edgecv.benchmark.plan import find_preset, plan_candidates
    from edgecv.benchmark.reference import models_to_time
    from edgecv.benchmark.tables import noise_notes, profile_tables, result_notes, result_tables
    from edgecv.files import check_output
    from edgecv.runtime.model_bytes import read_model
    from edgecv.workspace import current_model

    chosen, batches = find_preset(preset), _batches(batch)
    if output is not None:
        check_output(output, force=force, inputs=tuple(models or ()))
    images = _images(data)
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        for model in models or [current_model()]:
            read_model(model)  # refused here and now, before a worker opens it
        taken, notes = models_to_time(models or [])
        counts = _words(threads, "--threads")
        if device is not None:
            report, there = _on_device(
                device, data, (taken, provider, batches, counts, preset, profile, seed), progress
            )
            notes += there
        else:
            candidates = plan_candidates(taken, provider or ["cpu"], batches, counts)
            extras = Extras(images=images, profile=profile)
            report = run_benchmark(candidates, chosen, seed=seed, extras=extras, progress=progress)
    path = _keep(report, output, notes)
    emit(
        {**report.to_dict(), "notes": notes, "artifact": str(path or "")},
        as_json=as_json,
        quiet=quiet,
        tables=[*result_tables(report), *profile_tables(report)],
        notes=[*notes, *result_notes(report), *noise_notes(report)],
        verdict=report.verdict,
        artifact=path,
        next_command=f"edgecv compare {path} LATER.json --max-regress 3%" if path else "",
    )


def _on_device(
    name: str, data: Path | None, asked: tuple[Any, ...], progress: "Progress"
) -> tuple["BenchReport", list[str]]:
    """Run the benchmark where a profile's connection leads, by default on the profile's first provider and threads."""
    from edgecv.config.device import load_device
    from edgecv.errors import UsageError
    from edgecv.pipeline.remote_bench import RemotePlan, bench_on_device

    if data is not None:
        raise UsageError("--data times photographs on this machine only; leave it out with --device.")
    profile = load_device(name)
    models, providers, batches, threads, preset, by_layer, seed = asked
    if threads == ["auto"] and profile.threads:
        threads = [str(profile.threads)]
    plan = RemotePlan(
        tuple(models), tuple(providers or profile.providers[:1]), tuple(batches), tuple(threads), preset, by_layer, seed
    )
    return bench_on_device(profile, plan, progress=progress)


def _keep(report: "BenchReport", output: Path | None, notes: list[str]) -> Path | None:
    """Save the report; where nobody named a file, a folder that cannot be written is only noted."""
    from edgecv.benchmark.report import save_report
    from edgecv.errors import UsageError

    moment = report.measured_at.replace(":", "").replace("-", "").split("+")[0]
    default = Path(".edgecv") / "bench" / f"{Path(report.results[-1].model).stem}-{moment}.json"
    try:
        save_report(report, output or default)
    except (OSError, UsageError) as e:
        if output is not None:
            raise
        notes.append(f"the report was not kept ({e}); name a file with -o")
        return None
    return output or default


def _images(data: Path | None) -> tuple[Path, ...]:
    if data is None:
        return ()
    from edgecv.benchmark.latency import END_TO_END_IMAGES
    from edgecv.data.folder import open_dataset

    return tuple(path for path, _ in open_dataset(data).limited(END_TO_END_IMAGES).samples)


def _batches(text: str) -> list[int]:
    from edgecv.errors import UsageError

    words = _words(text, "--batch")
    if not all(w.isdecimal() and 1 <= int(w) <= 1024 for w in words):
        raise UsageError(f"--batch '{text}' is not a list of numbers from 1 to 1024, e.g. 1,8.")
    return [int(w) for w in words]


def _words(text: str, option: str) -> list[str]:
    from edgecv.errors import UsageError

    words = [w.strip() for w in text.split(",")]
    if not all(words):
        raise UsageError(f"{option} '{text}' has an empty part; write it like 1,2.")
    return words
