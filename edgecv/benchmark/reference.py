"""Which files a benchmark takes when none is named: the current model, and the one it was made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv.benchmark.child import Child, Patience
from edgecv.benchmark.plan import Candidate
from edgecv.errors import UsageError
from edgecv.files import sha256_file
from edgecv.workspace import current_model


def models_to_time(named: Sequence[Path], patience: Patience | None = None) -> tuple[list[Path], list[str]]:
    """Return the models to time, reference first, and what to tell the user about the choice.

    Args:
        named: What the user named; taken as it is when not empty.
        patience: How long to wait for the process that reads the manifest.

    Raises:
        UsageError: Nothing was named and there is no current model, or it cannot be read.
    """
    if named:
        return list(named), []
    current = current_model()
    origin, note = _find_origin(current, _made_from(current, patience))
    taken = [origin, current] if origin else [current]
    return taken, [f"models: {', '.join(map(str, taken))} (the current model{note})"]


def _find_origin(model: Path, made_from: Mapping[str, Any]) -> tuple[Path | None, str]:
    name, digest = made_from.get("file", ""), made_from.get("sha256", "")
    if not name:
        return None, ""
    origin = model.parent / Path(name).name  # a name only: a manifest never points out of its own folder
    if not origin.is_file():
        return None, f"; '{name}', which it was made from, is not beside it"
    if sha256_file(origin) != digest:
        return None, f"; '{name}' beside it is not the file it was made from and was left out"
    return origin, ", against the one it was made from"


def _made_from(model: Path, patience: Patience | None) -> Mapping[str, Any]:
    if not model.is_file():
        raise UsageError(f"the current model '{model}' is not a file; name another.")
    with Child(Candidate(model), {"manifest_of": str(model)}, patience) as child:
        made_from: Mapping[str, Any] = (child.facts["manifest"] or {}).get("made_from", {})
        return made_from
