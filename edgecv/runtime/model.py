"""A classifier as an app uses it: load once, call with images, get names and probabilities."""

import contextlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np

from edgecv.errors import UsageError
from edgecv.manifest import KEY, InputSpec, Manifest
from edgecv.runtime.decode import ImageSource
from edgecv.runtime.native_log import plain_message
from edgecv.runtime.postprocess import top_probabilities
from edgecv.runtime.preprocess import preprocess, to_model_input
from edgecv.runtime.providers import PROVIDERS
from edgecv.runtime.session import Session, open_session

MAX_BATCH = 8
"""Images of a list that are decoded and run at a time: keeps memory flat, and a CPU gains nothing from more."""

_DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says about one image.

    Attributes:
        label: Name of the best class (its index as text when the model has no names).
        probability: Of the best class, 0..1.
        top: ``(label, probability)`` of the best classes, best first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Model:
    """An image classifier in an ONNX file with edgecv's manifest.

    Several threads may call one model: a call keeps nothing between images, and ``InferenceSession.run`` is safe to
    call concurrently on the CPU, CUDA and TensorRT providers (github.com/microsoft/onnxruntime/issues/114); on any
    other provider calls wait for each other.

    >>> with Model.load("model.onnx") as model:  # doctest: +SKIP
    ...     model("photo.jpg").label
    'tabby, tabby cat'
    """

    def __init__(self, session: Session, size: tuple[int, int] | None = None) -> None:
        """Wrap an open session; use :meth:`load` unless you have one."""
        self._manifest = require_manifest(session)
        self._spec = self._manifest.input
        self._size = _checked_size(self._spec, size, session.name)
        self._output, self._batch = check_graph(session, self._manifest)
        self._session: Session | None = session
        self._labels = self._manifest.output.labels or None
        alone = any(n in PROVIDERS and not PROVIDERS[n].concurrent for n in session.providers)
        self._turn: contextlib.AbstractContextManager[Any] = threading.Lock() if alone else contextlib.nullcontext()

    @classmethod
    def load(
        cls,
        path: str | Path | bytes,
        *,
        provider: str = "cpu",
        threads: int | str = "auto",
        size: tuple[int, int] | None = None,
    ) -> "Model":
        """Open a model file.

        Args:
            path: An ONNX file made or adopted by ``edgecv export``, or its bytes.
            provider: See :func:`~edgecv.runtime.session.open_session`.
            threads: Intra-op threads, or ``"auto"``.
            size: ``(height, width)`` in pixels to run a model of dynamic size at, instead of its default.

        Raises:
            UsageError: Not a model, without a manifest, or not a classifier.
            EnvironmentRefusedError: The provider does not start on this machine.
        """
        source = path if isinstance(path, bytes) else Path(path)
        return cls(open_session(source, provider=provider, threads=threads), size)

    @property
    def manifest(self) -> Manifest:
        """What is known about the model: input, output, source, what was done to it."""
        return self._manifest

    @property
    def session(self) -> Session:
        """The open session: providers obtained, threads, notes.

        Raises:
            UsageError: The model is closed.
        """
        if self._session is None:
            raise UsageError("the model is closed; load it again.")
        return self._session

    @overload
    def __call__(self, images: ImageSource, *, top: int = 5) -> Prediction: ...
    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], *, top: int = 5) -> list[Prediction]: ...

    def __call__(
        self, images: ImageSource | list[Any] | tuple[Any, ...], *, top: int = 5
    ) -> Prediction | list[Prediction]:
        """Classify one image, or a list of them.

        Args:
            images: Path, bytes of an image file, PIL image, or uint8 pixels (H, W, 3) in RGB order. Pixels of exactly
                the model's height and width are used as they are; all else is resized and cropped.
            top: How many classes to report.

        Returns:
            A prediction, or a list of them in the order given.

        Raises:
            UsageError: An image cannot be used, the model is closed, or it answers with NaN.
        """
        if top < 1:
            raise UsageError(f"top must be at least 1, not {top}.")
        if not isinstance(images, list | tuple):
            return self._predictions([images], top)[0]
        step = self._batch or MAX_BATCH
        return [p for i in range(0, len(images), step) for p in self._predictions(images[i : i + step], top)]

    def close(self) -> None:
        """Release the session; calls under way in other threads finish first."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _predictions(self, images: Sequence[ImageSource], top: int) -> list[Prediction]:
        session = self.session  # our own reference: close() in another thread cannot pull it away
        pixels = [preprocess(image, self._spec, self._size) for image in images]
        batch = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        missing = self._batch - len(images)
        if missing > 0:  # a graph of fixed batch: the rest is filled up and its answers dropped
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)])
        feed = {self._spec.name: to_model_input(batch, self._spec)}
        try:
            with self._turn:
                scores = session.session.run([self._output], feed)[0]
        except Exception as e:  # onnxruntime's exceptions have no common base but this
            raise UsageError(f"model '{session.name}' cannot be run ({plain_message(str(e))}).") from e
        scores = self._checked_scores(scores, len(batch), session.name)[: len(images)]
        return [self._prediction(row, top, session.name) for row in scores]

    def _checked_scores(self, scores: np.ndarray, images: int, name: str) -> np.ndarray:
        classes = len(self._labels) if self._labels else scores.shape[-1]
        if scores.shape != (images, classes):
            raise UsageError(f"model '{name}' answers with shape {scores.shape}, not ({images}, {classes} classes).")
        return scores

    def _prediction(self, scores: np.ndarray, top: int, name: str) -> Prediction:
        best = top_probabilities(scores, top, logits=self._manifest.output.kind == "logits")
        if math.isnan(best[0][1]):
            raise UsageError(f"model '{name}' answers with NaN; check it with: edgecv verify")
        named = tuple((self._labels[i] if self._labels else str(i), probability) for i, probability in best)
        return Prediction(*named[0], named)


def require_manifest(session: Session) -> Manifest:
    """Return the manifest inside an open model.

    Raises:
        UsageError: There is none; the message says how to adopt a foreign model.
    """
    if session.manifest is None:
        raise UsageError(
            f"'{session.name}' has no edgecv manifest (metadata key '{KEY}'), so its preprocessing is not known; "
            f"adopt it first: edgecv export {session.name} --mean M --std S --labels FILE"
        )
    return session.manifest


def _checked_size(spec: InputSpec, size: tuple[int, int] | None, name: str) -> tuple[int, int]:
    default = spec.input_size[1], spec.input_size[2]
    if size is None or tuple(size) == default:
        return default
    if not spec.dynamic_size:
        raise UsageError(
            f"model '{name}' takes {default[0]}x{default[1]} only; export it with --dynamic-size for others."
        )
    if len(size) != 2 or not all(isinstance(s, int) and 1 <= s <= 16384 for s in size):
        raise UsageError(f"size must be (height, width) of 1 to 16384 pixels, not {size}.")
    return size[0], size[1]


def check_graph(session: Session, manifest: Manifest) -> tuple[str, int]:
    """Check that the graph takes and gives what the manifest says; return its output and fixed batch (0: any)."""
    name, spec = session.name, manifest.input
    inputs, outputs = session.session.get_inputs(), session.session.get_outputs()
    taken = [f"{i.name}: {i.type} {i.shape}" for i in inputs]
    size = ("height", "width") if spec.dynamic_size else spec.input_size[1:]
    expected = ["batch", *size, 3] if spec.layout == "NHWC" else ["batch", 3, *size]
    if (
        [(i.name, i.type) for i in inputs] != [(spec.name, _DTYPES[spec.dtype])]
        or len(inputs[0].shape) != 4
        or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(inputs[0].shape, expected, strict=True)
        )
    ):
        raise UsageError(
            f"model '{name}' takes {taken} and its manifest says {spec.name}: {spec.dtype} {expected}; export it again."
        )
    output = next((o for o in outputs if o.name == manifest.output.name), None)
    if output is None:
        raise UsageError(
            f"model '{name}' has no output '{manifest.output.name}' as its manifest says; export it again."
        )
    if manifest.task != "classify" or len(output.shape) != 2 or not output.type.startswith("tensor(float"):
        raise UsageError(
            f"model '{name}' is not a classifier: its output is {output.type} {output.shape}, not float (N, classes)."
        )
    labels = len(manifest.output.labels)
    if labels and isinstance(output.shape[1], int) and output.shape[1] != labels:
        raise UsageError(
            f"model '{name}' has {output.shape[1]} classes, its manifest {labels} labels; export it again."
        )
    batch = inputs[0].shape[0]
    return output.name, batch if isinstance(batch, int) else spec.batch
