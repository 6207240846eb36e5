"""Opening a model: the provider asked for or an error, never a silent fallback to the CPU."""

import contextlib
import io
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.manifest import Manifest
from edgecv.runtime.host import usable_cores
from edgecv.runtime.model_bytes import ModelBytes, read_model
from edgecv.runtime.native_log import capture_stderr, cause, plain_message
from edgecv.runtime.ort_session import RunOptions, create_session, node_share
from edgecv.runtime.owners import load_onnxruntime
from edgecv.runtime.providers import PROVIDERS, check_installed, is_plugin, parse_providers

MAX_THREADS = 1024
DOCTOR_HINT = "see what starts on this machine with: edgecv doctor"


@dataclass(frozen=True, slots=True)
class Session:
    """An open model.

    Attributes:
        session: ONNX Runtime's ``InferenceSession``.
        manifest: What edgecv knows about the model; None for a foreign one.
        providers: Short names of the providers that run at least one node, in the order of preference.
        node_share: Share of the graph's nodes on each of them (0..1; NaN where ONNX Runtime cannot tell).
        threads: Intra-op threads.
        name: The model's file, for messages.
        notes: Sentences the user should see: a provider not obtained, more threads than cores.
    """

    session: Any
    manifest: Manifest | None
    providers: tuple[str, ...]
    node_share: Mapping[str, float]
    threads: int
    name: str
    notes: tuple[str, ...] = ()


def open_session(
    model: Path | bytes,
    *,
    provider: str = "cpu",
    threads: int | str = "auto",
    profile_prefix: str | None = None,
    optimize: bool = True,
    policy: str | None = None,
    isolate: bool = False,
) -> Session:
    """Open a model on the provider asked for.

    ``"cuda"`` is CUDA or an error; ``"cuda,cpu"`` tries in order, and the result says what was obtained. Nodes a
    provider cannot run go to the next one named and last to the CPU, as ONNX Runtime does it: see ``node_share``.

    The session is made from the very bytes that were read and checked. Weights kept beside the file are read from
    its own folder and nowhere else, those of a model given as bytes not at all.

    Args:
        model: Path of an ONNX file, or its bytes.
        provider: Short names of :data:`~edgecv.runtime.providers.PROVIDERS`, separated by commas.
        threads: Intra-op threads, or ``"auto"``: min(affinity, cgroup quota, physical cores).
        profile_prefix: Write ONNX Runtime's profile to a file of this prefix.
        optimize: Let ONNX Runtime fuse and fold; False runs the graph as it stands.
        policy: What the file may hold, by name in :data:`~edgecv.runtime.policy.POLICIES`; None is ``standard``, or
            what the environment variable ``EDGECV_POLICY`` says.
        isolate: Open and run it once in a child process first, whose time and memory are limited.

    Raises:
        UsageError: The file is missing, not a regular file, not a valid model, not one the policy allows, or an option
            is wrong.
        EnvironmentRefusedError: No ONNX Runtime, or none of the providers starts here.
    """
    names = parse_providers(provider)
    count, notes = thread_count(threads)
    ort = load_onnxruntime()
    source, manifest = read_model(model, policy, isolate=isolate)
    run = RunOptions(count, profile_prefix, optimize)
    refused: list[str] = []
    for i, name in enumerate(names):
        try:
            session, share = _start(ort, source, names[i:], run)
        except EnvironmentRefusedError as e:
            refused.append(str(e))
            continue
        if refused:
            notes.append(f"{name} instead of {','.join(names[:i])}: {' '.join(refused)}")
        if manifest is not None and manifest.source.get("weights") == "random-init":
            notes = [*notes, f"{source.name} has random weights: its answers mean nothing"]
        return Session(session, manifest, tuple(share), share, count, source.name, tuple(notes))
    raise EnvironmentRefusedError(" ".join(refused))


def thread_count(threads: int | str) -> tuple[int, list[str]]:
    """Return the intra-op threads for ``"auto"`` or a number, and what the user should know about them.

    Raises:
        UsageError: Neither ``"auto"`` nor a number from 1 to :data:`MAX_THREADS`.
    """
    cores = usable_cores()
    if threads == "auto":
        return cores, []
    try:
        count = int(threads) if isinstance(threads, str) else operator.index(threads)
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= MAX_THREADS:
        raise UsageError(f"threads must be 'auto' or a number from 1 to {MAX_THREADS}, not {threads!r}.")
    return count, [f"{count} threads on {cores} usable cores: they will wait for each other."] if count > cores else []


def _start(ort: Any, model: ModelBytes, names: Sequence[str], run: RunOptions) -> tuple[Any, dict[str, float]]:
    """Open a session whose first provider is ``names[0]``; return it with the share of nodes of each."""
    first = names[0]
    check_installed(ort, first)
    if first == "cpu":
        return create_session(ort, model, ["cpu"], run), {"cpu": 1.0}
    failure = ""
    with capture_stderr() as log:
        _preload_libraries(ort, first)
        try:
            session = create_session(ort, model, _company(ort, names), run)
        except UsageError as e:
            session, failure = None, str(e.__cause__)
    if session is None:
        create_session(ort, model, ["cpu"], run)  # a bad model fails here as well, and is no provider's fault
        raise _refusal(first, "does not start here", cause(f"{failure}\n{log.text}") or plain_message(failure))
    if PROVIDERS[first].ort_name not in session.get_providers():
        raise _refusal(first, "does not start here", cause(log.text) or "ONNX Runtime gives no reason")
    share = node_share(session)
    if share is None:
        obtained = session.get_providers()
        share = dict.fromkeys((n for n, p in PROVIDERS.items() if p.ort_name in obtained), float("nan"))
    elif first not in share:
        raise _refusal(first, "starts but takes none of the model's nodes", cause(log.text))
    order = [*names, *PROVIDERS]
    return session, dict(sorted(share.items(), key=lambda item: order.index(item[0])))


def _company(ort: Any, names: Sequence[str]) -> list[str]:
    """Return which of ``names`` go into one session: ONNX Runtime's own or plugins, not both; the CPU is implied."""
    available = ort.get_available_providers()
    plugins = is_plugin(names[0], available)
    return [
        n
        for n in names
        if n != "cpu" and is_plugin(n, available) == plugins and (plugins or PROVIDERS[n].ort_name in available)
    ]


def _preload_libraries(ort: Any, name: str) -> None:
    """Let ONNX Runtime find CUDA and cuDNN where pip put them; it prints what it misses, which we learn anyway."""
    if name in ("cuda", "trt") and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _refusal(name: str, what: str, reason: str) -> EnvironmentRefusedError:
    needs = PROVIDERS[name].needs
    return EnvironmentRefusedError(
        f"provider '{name}' {what}{': ' if reason else ''}{reason}; "
        f"{f'it needs {needs}; ' if needs else ''}{DOCTOR_HINT}"
    )
