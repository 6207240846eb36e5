"""``edgecv predict``: what a model sees in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecv.cli.options import Debug, Json, Provider, Quiet, Seed, Threads, Trust
from edgecv.cli.output import emit, progress_bar, say

if TYPE_CHECKING:
    from edgecv.progress import Progress
    from edgecv.runtime import Model, Prediction

ModelOption = Annotated[Path | None, typer.Option("--model", "-m", help="ONNX file; default the current model.")]
Top = Annotated[int, typer.Option("--top", min=1, max=1000, help="How many classes to show.")]


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    model: ModelOption = None,
    top: Top = 5,
    provider: Provider = "cpu",
    threads: Threads = "auto",
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Classify images with a model; a bad image is reported and the others go on (exit code 2 at the end)."""
    from edgecv.errors import UsageError
    from edgecv.runtime import Model
    from edgecv.runtime.host import host_facts
    from edgecv.workspace import current_model

    path = model or current_model()
    with Model.load(path, provider=provider, threads=threads, policy="relaxed" if trust else "strict") as network:
        session = network.session
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            found, failed = _classify(network, images, top, progress)
    if not found and not as_json:
        raise UsageError(_failure(failed, len(images)))
    notes = [*session.notes, *([f"model: {path} (the current one)"] if model is None else [])]
    emit(
        {
            "model": str(path),
            "provider": ",".join(session.providers),
            "node_share": dict(session.node_share),
            "notes": list(session.notes),
            "predictions": [_as_dict(image, prediction) for image, prediction in found],
            "failed": [{"image": str(image), "error": error} for image, error in failed],
        }
        | host_facts(threads=session.threads, n=len(found), seed=seed),
        as_json=as_json,
        quiet=quiet,
        tables=[("", ("image", "label", "probability"), _rows(found))] if found else [],
        notes=notes,
        verdict=_verdict(found),
        next_command="edgecv bench" if found else "",
    )
    if failed:
        raise UsageError(_failure(failed, len(images)))


def _classify(
    network: "Model", images: list[Path], top: int, progress: "Progress"
) -> tuple[list[tuple[Path, "Prediction"]], list[tuple[Path, str]]]:
    """Return predictions and failures; of several, one that fails is told on stderr at once."""
    from edgecv.errors import UsageError
    from edgecv.runtime.preprocess import preprocess

    found, failed = [], []
    for done, image in enumerate(images, 1):
        try:
            pixels = preprocess(image, network.manifest.input)
        except UsageError as e:
            failed.append((image, str(e)))
            if len(images) > 1:
                say(f"error: {e}")
            continue
        found.append((image, network(pixels, top=top)))
        progress("images", done, len(images))
    return found, failed


def _failure(failed: list[tuple[Path, str]], images: int) -> str:
    if images == 1:
        return failed[0][1]
    if len(failed) == images:
        return f"none of the {images} images could be used."
    return f"{len(failed)} of {images} images could not be used; the other {images - len(failed)} were classified."


def _rows(found: list[tuple[Path, "Prediction"]]) -> list[list[str]]:
    return [
        ["" if rank else str(image), label, f"{probability:.4f}"]
        for image, prediction in found
        for rank, (label, probability) in enumerate(prediction.top)
    ]


def _as_dict(image: Path, prediction: "Prediction") -> dict[str, Any]:
    top = [{"label": label, "probability": probability} for label, probability in prediction.top]
    return {"image": str(image), "label": prediction.label, "probability": prediction.probability, "top": top}


def _verdict(found: list[tuple[Path, "Prediction"]]) -> str:
    if len(found) == 1:
        return f"{found[0][1].label} ({found[0][1].probability:.1%})"
    return f"{len(found)} images classified"
