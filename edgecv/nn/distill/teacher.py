"""A teacher: any PyTorch checkpoint or any ONNX model, asked for the logits of a batch of augmented pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.data.classes import match_classes
from edgecv.errors import UsageError
from edgecv.evaluate.classifier import Classifier, open_classifier
from edgecv.files import sha256_file
from edgecv.manifest import InputSpec
from edgecv.nn.models import build_network
from edgecv.nn.network import Network
from edgecv.nn.pixels import normalize

_SMALLEST_PROBABILITY = 1e-8


@dataclass(frozen=True, slots=True)
class Teacher:
    """What a student learns from.

    Attributes:
        name: As the user named it.
        digest: Of its weights, so that kept logits are never those of another teacher.
        spec: What it takes; its size and normalisation may differ from the student's.
        labels: Its label texts; may be empty.
        label_ids: Its folder names; may be empty.
        classes: How many scores it gives.
        logits: Pixels float32 (N, 3, H, W) of 0..255 at the teacher's size → float32 (N, classes), no gradient.
        module: The network itself, for feature hints; None for an ONNX model.
    """

    name: str
    digest: str
    spec: InputSpec
    labels: tuple[str, ...]
    label_ids: tuple[str, ...]
    classes: int
    logits: Callable[[Tensor], Tensor]
    module: nn.Module | None

    def ask(self, pixels: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """Return float32 logits (N, classes) of augmented pixels in any size.

        Args:
            pixels: (N, 3, H, W), 0..255.
            columns: The teacher's class index of each class of the student; None when they are the same.
        """
        answer = self.logits(resize(pixels, self.spec))
        return answer if columns is None else answer[:, list(columns)]


def open_teacher(
    name: str,
    *,
    weights: Path | None = None,
    provider: str = "cpu",
    threads: int | str = "auto",
    device: torch.device | str = "cpu",
) -> Teacher:
    """Open a teacher: a checkpoint, an ``.onnx``, or a network by name with published weights.

    Args:
        name: Path or network name.
        weights: State dict for a network given by name.
        provider: ONNX Runtime provider of an ``.onnx``.
        threads: Of ONNX Runtime.
        device: Where a PyTorch teacher runs; in the precision of the caller's autocast.

    Raises:
        UsageError: No such file or network, or not a classifier.
        EnvironmentRefusedError: No weights to be had, or the provider does not start.
    """
    if name.endswith(".onnx"):
        return _onnx_teacher(Path(name), provider, threads)
    network = build_network(name, weights=weights)
    digest = network.source.get("sha256") or (sha256_file(Path(name)) if Path(name).is_file() else name)
    return teacher_of(network, device=device, digest=digest)


def teacher_of(network: Network, *, device: torch.device | str = "cpu", digest: str = "") -> Teacher:
    """Return a PyTorch network as a teacher: in eval mode, on ``device``, without gradients."""
    module = network.module.to(device).eval().requires_grad_(False)

    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            answer: Tensor = module(normalize(pixels, network.input).contiguous(memory_format=torch.channels_last))
        return answer.float()

    classes = logits(torch.zeros(1, *network.input.input_size, device=device)).shape[1]
    return Teacher(network.name, digest, network.input, network.labels, network.label_ids, classes, logits, module)


def class_columns(teacher: Teacher, labels: Sequence[str]) -> list[int] | None:
    """Return the teacher's class index for each of the student's labels, matched by name; None when all agree in order.

    Raises:
        UsageError: The teacher does not know one of the classes, or their numbers differ and it has no names.
    """
    if not teacher.labels and not teacher.label_ids:
        if teacher.classes != len(labels):
            raise UsageError(
                f"teacher '{teacher.name}' has {teacher.classes} classes without names, the data {len(labels)}; "
                "train the teacher on this data first, or export it with --labels FILE."
            )
        return None
    matched = match_classes(labels, teacher.labels, teacher.label_ids)
    columns = [matched[label] for label in labels]
    return None if columns == list(range(teacher.classes)) else columns


def resize(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Return pixels of 0..255 in the size that ``spec`` takes; smoothed when they shrink, as Pillow does it."""
    size = spec.input_size[1:]
    pixels = pixels.float()
    if tuple(pixels.shape[2:]) == size:
        return pixels
    larger = functional.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    return larger.clamp(0, 255)


def _onnx_teacher(path: Path, provider: str, threads: int | str) -> Teacher:
    classifier = open_classifier(path, provider, threads)
    output = classifier.manifest.output

    def logits(pixels: Tensor) -> Tensor:
        images = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(_scores(classifier, np.ascontiguousarray(images))).to(pixels.device)

    size = classifier.spec.input_size[1:]
    classes = classifier.classes or _scores(classifier, np.zeros((1, *size, 3), np.uint8)).shape[1]
    return Teacher(
        str(path), classifier.sha256, classifier.spec, output.labels, output.label_ids, classes, logits, None
    )


def _scores(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return logits; of a model that gives probabilities their logarithms, which softmax turns back."""
    scores = classifier.scores(images)
    if classifier.manifest.output.kind != "logits":
        scores = np.log(np.maximum(scores, _SMALLEST_PROBABILITY))
    return scores.astype(np.float32)
