"""A model opened to be judged: raw scores of whole batches, on the images of a data set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.data.batches import Batch, iter_batches
from edgecv.data.dataset import Dataset, unreadable_notes
from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.evaluate.borrowed import borrow_manifest, borrowed_note
from edgecv.files import sha256_file
from edgecv.manifest import InputSpec, Manifest
from edgecv.progress import Progress, no_progress
from edgecv.runtime.contract import check_graph, require_manifest
from edgecv.runtime.native_log import plain_message
from edgecv.runtime.postprocess import softmax
from edgecv.runtime.preprocess import to_model_input
from edgecv.runtime.session import Session, open_session

Scores = npt.NDArray[np.float64]
_TINY = 1e-30  # below any float32 probability: keeps logarithms finite


@dataclass(frozen=True, slots=True)
class Classifier:
    """An open classifier.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        session: The open session.
        manifest: From inside the file.
        classes: Number of classes; 0 when the graph leaves it open and there are no labels.
        batch: Images a run is fixed to; 0 for any number.
    """

    path: Path
    sha256: str
    session: Session
    manifest: Manifest
    classes: int
    batch: int

    @property
    def spec(self) -> InputSpec:
        """What the model takes."""
        return self.manifest.input

    def scores(self, images: npt.NDArray[np.uint8]) -> Scores:
        """Run preprocessed images, uint8 (N, H, W, 3); return the raw output as float64 (N, classes).

        Raises:
            UsageError: The graph does not run, or does not answer with one row of scores an image.
        """
        step = self.batch or len(images)
        return np.concatenate([self._run(images[i : i + step], step) for i in range(0, len(images), step)])

    def probabilities(self, scores: Scores) -> Scores:
        """Return class probabilities of raw scores, (N, classes)."""
        return softmax(scores) if self.manifest.output.kind == "logits" else scores

    def log_probabilities(self, scores: Scores) -> Scores:
        """Return natural logarithms of the class probabilities, finite for finite scores, (N, classes)."""
        if self.manifest.output.kind != "logits":
            return np.asarray(np.log(np.maximum(scores, _TINY)))
        shifted = scores - scores.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    def _run(self, images: npt.NDArray[np.uint8], step: int) -> Scores:
        missing = step - len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        try:
            feed = {self.spec.name: to_model_input(filled, self.spec)}
            output = self.session.session.run([self.manifest.output.name], feed)[0]
        except Exception as e:  # onnxruntime's exceptions have no common base but this
            raise UsageError(f"model '{self.path}' does not run ({plain_message(str(e))}); export it again.") from e
        if output.shape != (len(filled), self.classes or output.shape[-1]):
            raise UsageError(
                f"model '{self.path}' answers with shape {output.shape} for {len(filled)} images and {self.classes} "
                "classes; only classifiers can be judged."
            )
        return np.asarray(output[: len(images)], np.float64)


def open_classifier(path: Path, provider: str = "cpu", threads: int | str = "auto") -> Classifier:
    """Open a model to be judged.

    Raises:
        UsageError: Not a model, without a manifest, or not the classifier its manifest says.
        EnvironmentRefusedError: The provider does not start.
    """
    return open_classifiers([path], provider, threads)[0]


def open_classifiers(paths: Sequence[Path], provider: str = "cpu", threads: int | str = "auto") -> list[Classifier]:
    """Open models to be judged together.

    One without a manifest borrows that of the first model that has one, and a note of its session says so: see
    :func:`edgecv.evaluate.borrowed.borrow_manifest`.

    Raises:
        UsageError: Not a model, none has a manifest, or one is not the classifier its manifest says.
        EnvironmentRefusedError: The provider does not start.
    """
    sessions = [open_session(path, provider=provider, threads=threads) for path in paths]
    lender = next((s for s in sessions if s.manifest is not None), None)
    return [_classifier(path, session, lender) for path, session in zip(paths, sessions, strict=True)]


def _classifier(path: Path, session: Session, lender: Session | None) -> Classifier:
    if session.manifest is None and lender is not None and lender.manifest is not None:
        manifest = borrow_manifest(session, lender.manifest, lender.name)
        session = replace(session, notes=(*session.notes, borrowed_note(session.name, lender.name)))
    else:
        manifest = require_manifest(session)
    output, batch = check_graph(session, manifest)
    width = next(o.shape[1] for o in session.session.get_outputs() if o.name == output)
    classes = len(manifest.output.labels) or (width if isinstance(width, int) else 0)
    return Classifier(path, sha256_file(path), session, manifest, classes, batch)


def open_labelled(data: Path | Dataset, model: Classifier) -> Dataset:
    """Return the data set with its classes matched to the model's labels; one already open is taken as it is."""
    if isinstance(data, Dataset):
        return data
    output = model.manifest.output
    return open_dataset(data, output.labels, output.label_ids, model.classes)


def open_for_model(data: Path | Dataset, model: Classifier) -> tuple[Dataset, list[str]]:
    """Open a data set to compare models on, as :func:`open_labelled` does, and say what a reader should know of it.

    Where the model carries no label names and the class folders are not class numbers either, the images are taken
    without labels; the notes say so. Notes also name broken links and pipes that were left out.

    Args:
        data: Folder, CSV, list, image; or a data set already open, taken as it is.
        model: The one whose labels, or number of outputs, name the classes.

    Returns:
        The data set and sentences for a report.

    Raises:
        UsageError: As :func:`edgecv.data.folder.open_dataset`.
    """
    try:
        dataset = open_labelled(data, model)
    except UsageError as e:
        if model.manifest.output.labels or model.manifest.output.label_ids or isinstance(data, Dataset):
            raise
        dataset = open_dataset(data)  # a real fault of the data comes up again here
        return dataset, [f"agreement only: {e}", *unreadable_notes(dataset)]
    return dataset, unreadable_notes(dataset)


def iter_for_models(
    dataset: Dataset,
    models: Sequence[Classifier],
    batch_size: int,
    *,
    read: Callable[[Path, InputSpec], npt.NDArray[np.uint8]] | None = None,
    progress: Progress = no_progress,
) -> Iterator[list[Batch]]:
    """Yield for each batch of images one :class:`Batch` a model, preprocessed as that model wants it.

    Models that want the same pixels share one batch, decoded once.
    """
    keys = [_pixels(m.spec) for m in models]
    specs = dict(zip(reversed(keys), (m.spec for m in reversed(models)), strict=True))
    with ExitStack() as stack:
        streams = []
        for i, spec in enumerate(specs.values()):
            told = progress if i == 0 else no_progress
            stream = iter_batches(dataset, spec, batch_size, read=read, progress=told, label="judging")
            streams.append(stack.enter_context(closing(stream)))
        for batches in zip(*streams, strict=True):
            by_key = dict(zip(specs, batches, strict=True))
            yield [by_key[key] for key in keys]


def _pixels(spec: InputSpec) -> tuple[object, ...]:
    fill = spec.mean if spec.crop_mode == "border" else ()
    return spec.input_size, spec.interpolation, spec.crop_pct, spec.crop_mode, fill
