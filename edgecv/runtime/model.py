"""A classifier as an app uses it: load once, call with images, get names and probabilities."""

import contextlib
import math
import operator
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec, Manifest
from edgecv.runtime.contract import check_graph, require_manifest
from edgecv.runtime.decode import ImageSource
from edgecv.runtime.native_log import plain_message
from edgecv.runtime.postprocess import are_probabilities, top_probabilities
from edgecv.runtime.preprocess import preprocess, to_model_input
from edgecv.runtime.providers import PROVIDERS
from edgecv.runtime.session import Session, open_session

MAX_BATCH = 8
"""Images of a list that are decoded and run at a time: keeps memory flat, and a CPU gains nothing from more."""


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
        self._unproven = self._manifest.output.kind == "probabilities"  # looked at once: it costs more than a softmax
        alone = any(n in PROVIDERS and not PROVIDERS[n].concurrent for n in session.providers)
        self._turn: contextlib.AbstractContextManager[Any] = threading.Lock() if alone else contextlib.nullcontext()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | bytes | bytearray | memoryview,
        *,
        provider: str = "cpu",
        threads: int | str = "auto",
        size: tuple[int, int] | None = None,
        policy: str = "strict",
        isolate: bool = False,
    ) -> "Model":
        """Open a model file.

        Args:
            path: An ONNX file made or adopted by ``edgecv export``, or its bytes.
            provider: See :func:`~edgecv.runtime.session.open_session`.
            threads: Intra-op threads, or ``"auto"``.
            size: ``(height, width)`` in pixels to run a model of dynamic size at, instead of its default.
            policy: What the file may hold; ``relaxed`` for a file of your own that ``strict`` refuses. See
                :data:`~edgecv.runtime.policy.POLICIES`.
            isolate: Open and run it once in a child process first, so that a file that crashes or hangs ONNX Runtime
                is an error here; for files from strangers. Costs about half a second when the file is new.

        Raises:
            UsageError: Not a model, without a manifest, not a classifier, or an argument of a wrong type or value.
            EnvironmentRefusedError: The provider does not start on this machine.
        """
        if not isinstance(path, str | os.PathLike | bytes | bytearray | memoryview):
            raise UsageError(f"a model cannot be a {type(path).__name__}; give a path or the bytes of an ONNX file.")
        source = Path(path) if isinstance(path, str | os.PathLike) else bytes(path)
        session = open_session(source, provider=provider, threads=threads, policy=policy, isolate=isolate)
        return cls(session, size)

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
            UsageError: An image cannot be used, ``top`` is no positive integer, the model is closed, answers with NaN,
                or its manifest promises probabilities and the graph gives something else.
        """
        try:
            top = operator.index(top)
        except TypeError:
            raise UsageError(f"top must be a whole number, not {top!r}.") from None
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
        if scores.shape != (images, classes) or not classes:
            raise UsageError(f"model '{name}' answers with shape {scores.shape}, not ({images}, {classes} classes).")
        if self._unproven and not np.isnan(scores).any():
            if not are_probabilities(scores):
                raise UsageError(
                    f"model '{name}' says in its manifest that it gives probabilities, and gives values from "
                    f"{scores.min():.3g} to {scores.max():.3g}; export it again."
                )
            self._unproven = False
        return scores

    def _prediction(self, scores: np.ndarray, top: int, name: str) -> Prediction:
        best = top_probabilities(scores, top, logits=self._manifest.output.kind == "logits")
        if math.isnan(best[0][1]):
            raise UsageError(f"model '{name}' answers with NaN; check it with: edgecv verify")
        named = tuple((self._labels[i] if self._labels else str(i), probability) for i, probability in best)
        return Prediction(*named[0], named)


def _checked_size(spec: InputSpec, size: tuple[int, int] | None, name: str) -> tuple[int, int]:
    default = spec.input_size[1], spec.input_size[2]
    if size is None:
        return default
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(_is_side(s) for s in size):
        raise UsageError(f"size must be (height, width) of 1 to 16384 pixels, not {size!r}.")
    if tuple(size) == default:
        return default
    if not spec.dynamic_size:
        raise UsageError(
            f"model '{name}' takes {default[0]}x{default[1]} only; export it with --dynamic-size for others."
        )
    return size[0], size[1]


def _is_side(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= 16384
