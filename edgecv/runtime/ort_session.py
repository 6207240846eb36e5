"""Making ONNX Runtime's session object: its options, where weights may come from, its errors in one sentence."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.errors import UsageError
from edgecv.runtime.model_bytes import ModelBytes
from edgecv.runtime.native_log import plain_message
from edgecv.runtime.providers import PROVIDERS, is_plugin, plugin_devices

_SILENT = 4  # fatal messages only: an error reaches the user as an exception, in one sentence
_NO_FOLDER = os.path.join(os.devnull, "none")  # under a file, so it can never exist


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run it; see :func:`edgecv.runtime.session.open_session`."""

    threads: int
    profile_prefix: str | None
    optimize: bool


def create_session(ort: Any, model: ModelBytes, names: Sequence[str], run: RunOptions) -> Any:
    """Return an ``InferenceSession`` on the providers ``names``, all of ONNX Runtime's own or all plugins.

    Whether it really runs on them is the caller's to check: ONNX Runtime falls back to the CPU silently.

    Raises:
        UsageError: The model does not load; ``__cause__`` is ONNX Runtime's own exception.
        EnvironmentRefusedError: A plugin's library does not load or finds no device.
    """
    settings = _settings(ort, model, run)
    if list(names) == ["cpu"]:
        settings.log_severity_level = _SILENT
    else:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    classic: list[tuple[str, dict[str, str]]] | None = []
    available = ort.get_available_providers()
    for name in names:
        if is_plugin(name, available):
            settings.add_provider_for_devices(plugin_devices(ort, name)[:1], _provider_options(name, run))
            classic = None
        elif classic is not None:
            classic.append((PROVIDERS[name].ort_name, _provider_options(name, run)))
    try:
        # enable_fallback=0: otherwise Python prints a banner and retries on the CPU by itself.
        session = ort.InferenceSession(model.data, settings, providers=classic, enable_fallback=0)
    except MemoryError:
        raise
    except Exception as e:  # onnxruntime's exceptions have no common base but this
        raise UsageError(_bad_model(model.name, e)) from e
    if getattr(session, "_model_bytes", None) is model.data:
        session._model_bytes = None  # kept only for a retry on other providers; on a small board it is memory lost
    return session


def node_share(session: Any) -> dict[str, float] | None:
    """Return the share of the graph's nodes on each provider by short name; None where ONNX Runtime cannot tell."""
    try:
        assigned = session.get_provider_graph_assignment_info()
    except Exception:  # absent from older versions
        return None
    short = {p.ort_name: name for name, p in PROVIDERS.items()}
    counts: Counter[str] = Counter()
    for group in assigned:
        counts[short.get(group.ep_name, group.ep_name)] += len(group.get_nodes())
    total = sum(counts.values())
    return {name: n / total for name, n in counts.items()} if total else None


def _settings(ort: Any, model: ModelBytes, run: RunOptions) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = run.threads
    settings.inter_op_num_threads = 1
    if not run.optimize:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if run.profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = run.profile_prefix
    # Left alone, ONNX Runtime reads the external weights of a model given as bytes from the working directory.
    folder = _NO_FOLDER if model.folder is None else str(model.folder)
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    return settings


def _provider_options(name: str, run: RunOptions) -> dict[str, str]:
    own_pool = {"intra_op_num_threads": str(run.threads)} if name == "xnnpack" else {}
    return dict(PROVIDERS[name].options) | own_pool


def _bad_model(name: str, error: Exception) -> str:
    message = plain_message(str(error))
    if "protobuf parsing failed" in message or "No graph was found" in message:
        return f"model '{name}' is not an ONNX file or is truncated; export it again or fetch it again."
    if "External data" in message:
        return f"model '{name}' keeps weights in a file that cannot be used ({message}); put it beside the model."
    if "No Op registered" in message or "NOT_IMPLEMENTED" in str(error) or "Unsupported model IR" in message:
        return f"model '{name}' needs what this ONNX Runtime lacks ({message}); update onnxruntime or lower the opset."
    return f"model '{name}' cannot be run ({message}); export it again."
