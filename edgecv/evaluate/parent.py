"""Which models a comparison is about when the user names one or none."""

from collections.abc import Sequence
from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file
from edgecv.runtime.session import open_session
from edgecv.workspace import current_model


def choose_pair(models: Sequence[Path]) -> tuple[Path, Path]:
    """Return reference and candidate.

    Args:
        models: Both; or the candidate alone, compared with the one it was made from; or none, for the workspace's
            current model.

    Raises:
        UsageError: More than two, no current model, or :func:`parent_of` fails.
    """
    if len(models) > 2:
        raise UsageError(f"verify compares two models, not {len(models)}: edgecv verify REF.onnx CAND.onnx --data DIR")
    if len(models) == 2:
        return models[0], models[1]
    candidate = models[0] if models else current_model()
    return parent_of(candidate), candidate


def parent_of(model: Path) -> Path:
    """Return the file that ``model`` was made from: beside it, of the recorded name and hash.

    Raises:
        UsageError: The model records none, or the file is gone or has changed.
    """
    manifest = open_session(model).manifest
    made_from = manifest.made_from if manifest else {}
    name, sha256 = made_from.get("file", ""), made_from.get("sha256", "")
    if not name:
        raise UsageError(
            f"'{model}' does not record which ONNX model it was made from; name both: edgecv verify REF.onnx {model}"
        )
    parent = model.parent / Path(name).name
    if not parent.exists():
        raise UsageError(f"'{model}' was made from '{parent.name}', which is not beside it; name both models.")
    check_regular_file(parent, "model", MAX_MODEL_BYTES)
    if sha256 and sha256_file(parent) != sha256:
        raise UsageError(
            f"'{parent}' has changed since '{model.name}' was made from it (sha256 differs); make it again, or compare "
            f"them as they are: edgecv verify {parent} {model}"
        )
    return parent
