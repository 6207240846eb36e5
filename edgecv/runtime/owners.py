"""Which distribution owns the module ``onnxruntime``: none, one, or several that destroy each other.

``onnxruntime``, ``onnxruntime-gpu``, ``onnxruntime-openvino`` and others install the same files. pip lets two
of them in without a word; the last one installed wins, and uninstalling either leaves a module without any
attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgecv.errors import EnvironmentRefusedError

INSTALL_HINT = "pip install 'edgecv[cpu]' (or, with an NVIDIA GPU, 'edgecv[gpu]')"
MEND_HINT = "; mend it with: "
_OWNED_FILE = "onnxruntime/__init__.py,"
_EXTRAS = {"onnxruntime-gpu": "gpu", "onnxruntime-openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class Owner:
    """An installed distribution that holds ``onnxruntime/__init__.py``."""

    name: str
    version: str


def onnxruntime_owners(path: Sequence[str] | None = None) -> list[Owner]:
    """Return every distribution whose RECORD lists ``onnxruntime/__init__.py``, by name.

    Args:
        path: Folders to look in instead of ``sys.path``.
    """
    found: dict[str, Owner] = {}
    for distribution in metadata.distributions() if path is None else metadata.distributions(path=list(path)):
        record = distribution.read_text("RECORD") or ""
        if record.startswith(_OWNED_FILE) or f"\n{_OWNED_FILE}" in record:
            name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
            found.setdefault(name, Owner(name, distribution.version))
    return [found[name] for name in sorted(found)]


def mending_commands(owners: Sequence[Owner], nvidia: bool | None = None) -> tuple[str, str]:
    """Return the two commands that leave one working ONNX Runtime where several are, or a damaged one is.

    Args:
        owners: What :func:`onnxruntime_owners` found.
        nvidia: Whether this machine has an NVIDIA driver; asked of the system when None.
    """
    names = [o.name for o in owners] or ["onnxruntime"]
    extras = {_EXTRAS[n] for n in names if n in _EXTRAS}
    if "gpu" not in extras or not (has_nvidia_driver() if nvidia is None else nvidia):
        extras = (extras - {"gpu"}) | {"cpu"}
    return f"pip uninstall -y {' '.join(names)}", f"pip install 'edgecv[{','.join(sorted(extras))}]'"


def has_nvidia_driver() -> bool:
    """Return whether Linux shows an NVIDIA driver: desktop and server, WSL, or Jetson."""
    nodes = ("/proc/driver/nvidia/version", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvgpu")
    return any(Path(node).exists() for node in nodes)


def load_onnxruntime() -> Any:
    """Import ONNX Runtime and return the module.

    Raises:
        EnvironmentRefusedError: Not installed, damaged by a second owner, or not loadable on this machine.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise EnvironmentRefusedError(_unusable(onnxruntime_owners(), str(e))) from e
    if not hasattr(onnxruntime, "InferenceSession"):
        raise EnvironmentRefusedError(_unusable(onnxruntime_owners(), "its files are gone"))
    return onnxruntime


def _unusable(owners: Sequence[Owner], reason: str) -> str:
    if not owners:  # pip leaves an empty folder behind, which Python imports as an empty module
        return f"ONNX Runtime is not installed; install it with: {INSTALL_HINT}."
    uninstall, install = mending_commands(owners)
    names = " and ".join(f"{o.name} {o.version}" for o in owners)
    reason = " ".join(reason.split())[:200]
    return f"{names} is installed but does not load ({reason}){MEND_HINT}{uninstall} && {install}"
