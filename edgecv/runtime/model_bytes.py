"""Reading a model file that may come from anywhere: the bytes that were checked are the bytes that are run."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, read_file
from edgecv.manifest import KEY, Manifest, from_metadata
from edgecv.runtime.caution import tries_models_first
from edgecv.runtime.onnx_records import OnnxModel
from edgecv.runtime.policy import Policy, check_model, find_policy

POLICY_VARIABLE = "EDGECV_POLICY"
"""Environment variable with the policy of models named without one; ``--trust`` sets it for child processes too."""

DEFAULT_POLICY = "standard"


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """A model to open.

    Attributes:
        data: The ONNX file's bytes.
        name: The file, for messages.
        folder: Where its external weights may be read from; None for nowhere.
    """

    data: bytes
    name: str
    folder: Path | None


def read_model(
    model: Path | bytes, policy: str | None = None, *, isolate: bool = False
) -> tuple[ModelBytes, Manifest | None]:
    """Read a model file once, check it, and return its bytes with its manifest (None for a foreign model).

    Args:
        model: Path of an ONNX file, or its bytes, whose weights must all be inside.
        policy: By name; None: what :data:`POLICY_VARIABLE` says, else :data:`DEFAULT_POLICY`.
        isolate: Open and run it once in a child process first (:mod:`edgecv.runtime.isolate`).

    Raises:
        UsageError: Not a regular file, not an ONNX file, against the policy, with weights outside the model's own
            folder, or with a manifest that is not valid.
    """
    rules = find_policy(policy or os.environ.get(POLICY_VARIABLE) or DEFAULT_POLICY)
    if isinstance(model, bytes):
        source = ModelBytes(model, "<bytes>", None)
    else:
        folder = model.resolve().parent if rules.external else None
        source = ModelBytes(read_file(model, "model", MAX_MODEL_BYTES), str(model), folder)
    manifest = check_source(source, rules)
    if isolate or (tries_models_first() and not rules.anything and not isinstance(model, bytes)):
        from edgecv.runtime.isolate import try_once

        try_once(source)
    return source, manifest


def check_source(source: ModelBytes, rules: Policy) -> Manifest | None:
    """Check a model's bytes and the files it names; return its manifest.

    Raises:
        UsageError: As :func:`read_model`.
    """
    found: list[Manifest | None] = []

    def image_size(metadata: dict[str, str]) -> tuple[int, int] | None:
        text = metadata.get(KEY, "")
        # Not text, so not ours.
        is_text = not any("\ud800" <= c <= "\udfff" for c in text)
        found.append(from_metadata(metadata, source.name) if is_text else None)
        return found[0].input.input_size[1:] if found[0] else None

    model = check_model(source.data, source.name, rules, image_size)
    for location in external_locations(model):
        check_location(source, location)
    return found[0] if found else None


def external_locations(model: OnnxModel) -> Iterator[str]:
    """Yield the files in which a model keeps weights, each once."""
    yield from sorted({t.location for t in model.graph.initializers.values() if t.location is not None})


def check_location(source: ModelBytes, location: str) -> None:
    """Allow external weights only in regular files of the model's own folder, links followed.

    Raises:
        UsageError: Elsewhere, missing, or no regular file.
    """
    if source.folder is None:
        raise UsageError(f"model '{source.name}' keeps weights outside the file, where none are read; give its path.")
    if "\0" in location or not location:
        raise UsageError(f"model '{source.name}' keeps weights in a file without a name; export it again.")
    target = (source.folder / location).resolve()
    if source.folder not in target.parents:
        raise UsageError(
            f"model '{source.name}' points to weights outside its own folder ('{location[:80]}'); refused."
        )
    check_regular_file(target, "weights file", MAX_MODEL_BYTES)
