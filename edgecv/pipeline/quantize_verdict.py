"""What became of a quantized model: judged against its original, timed beside it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.pipeline.quantize_request import QuantizeRequest
from edgecv.progress import Progress

if TYPE_CHECKING:
    from edgecv.data.dataset import Dataset
    from edgecv.evaluate.verdict import ParityReport


def judge(
    request: QuantizeRequest,
    source: Path,
    candidate: Path,
    dataset: "Dataset | None",
    pass_level: float,
    progress: Progress,
) -> dict[str, Any] | None:
    """Compare on the judging images; without any, on the calibration images, which is a smoke test and no verdict.

    ``pass_level`` is what a PASS needs (:mod:`edgecv.evaluate.looks`).
    """
    from edgecv.evaluate.parity import verify_models

    judged = request.eval_data or dataset
    if judged is None:
        return None
    report: ParityReport = verify_models(
        source,
        candidate,
        judged,
        max_drop=request.max_drop,
        provider=request.provider,
        threads=request.threads,
        pass_level=pass_level,
        allow_leak=request.eval_data is None,
        progress=progress,
    )
    measured = asdict(report) | {"judged": request.eval_data is not None}
    measured["candidate"]["file"] = candidate.name  # it was judged in a folder that is gone by now
    measured["notes"] = [note.replace(str(candidate), candidate.name) for note in measured["notes"]]
    if request.eval_data is None:
        measured |= {"verdict": "not judged", "reason": "calibration images show that it runs, not what it is worth"}
    return measured


def parity_entry(parity: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return what the manifest keeps of a parity report."""
    keys = ("n", "agreement", "drop_points", "drop_interval", "max_drop_points", "verdict", "kl_mean", "sqnr_db")
    return {"against": source.name, **{k: parity[k] for k in keys}}


def failure_of(parity: dict[str, Any], output: Path) -> str:
    """Return the sentence of a failed gate."""
    if parity["drop_interval"] is None:
        return f"'{output}' was not written: {parity['reason']}"
    low, high = parity["drop_interval"]
    return (
        f"'{output}' was not written: top-1 drops by {parity['drop_points']:.2f} points [{low:.2f}, {high:.2f}] on "
        f"{parity['n']} images, over the limit of {parity['max_drop_points']}; raise --max-drop, or leave layers float "
        "with --keep-float."
    )


def time_both(request: QuantizeRequest, source: Path, output: Path, progress: Progress) -> dict[str, Any]:
    """Time the original and the quantized model side by side; say which operators lose where it is slower."""
    from edgecv.benchmark import compare_latency
    from edgecv.benchmark.blame import explain_slower
    from edgecv.benchmark.report import SMALLEST_DIFFERENCE

    report = compare_latency(
        [source, output],
        provider=request.provider,
        threads=request.threads,
        preset=request.preset,
        seed=request.seed,
        progress=progress,
    )
    speedup = report.results[1].speedup
    slower = speedup is not None and speedup.estimate < 1 and speedup.excludes(1.0, SMALLEST_DIFFERENCE)
    return report.to_dict() | {"slower": slower, "slower_in": explain_slower(report, request.seed) if slower else []}
