"""The child process that times one candidate: ``python -m edgecv.benchmark.worker``, driven over its pipes.

One JSON object a line. The first line on stdin is the job, every further one a command; each is answered by one line
on the file descriptor that the second argument names (the first is the parent's process id). Only this process loads
the model, so memory, threads and provider are those of the model alone.
"""

import time

_FIRST_LINE_NS = time.perf_counter_ns()  # before any other import: what came earlier is the interpreter's own start

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

MAX_RUNS_PER_TURN = 20_000
"""A turn ends here at the latest: microsecond models would fill the pipe with samples."""

_WINDOW_NS = 50_000_000
_WINDOW_RUNS = 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    run: Callable[[int], Any]  # run(i) takes the i-th feed, round and round
    handle: Any  # the runtime's Session
    images: tuple[Path, ...]


def main() -> None:
    """Read the job, load the model, then answer commands until stdin ends."""
    _die_with_parent()
    commands, answers = sys.stdin.buffer, os.fdopen(int(sys.argv[2]), "wb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it kills us
    job = json.loads(commands.readline() or b"{}")
    if not job:
        return
    import_ns = time.perf_counter_ns()
    try:
        _serve(job, import_ns, commands, answers)
    except Exception as e:
        _answer(answers, {"error": type(e).__name__, "message": str(e), "exit_code": getattr(e, "exit_code", None)})


def _serve(job: Mapping[str, Any], import_ns: int, commands: Any, answers: Any) -> None:
    if "manifest_of" in job:
        _answer(answers, {"manifest": _manifest(Path(job["manifest_of"]))})
        return
    loaded, facts = _load(job, import_ns)
    _answer(answers, facts)
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "warm_up": _warm_up,
        "turn": _turn,
        "end_to_end": _end_to_end,
        "profile": _profile,
        "memory": _memory,
    }
    while line := commands.readline():
        command = json.loads(line)
        _answer(answers, actions[command.pop("do")](loaded, **command))


def _load(job: Mapping[str, Any], import_ns: int) -> tuple[_Loaded, dict[str, Any]]:
    """Open the session and make the first run, each on its own clock; return it and what the parent reports."""
    import numpy as np

    from edgecv.benchmark.inputs import random_feeds
    from edgecv.runtime.contract import check_graph
    from edgecv.runtime.owners import load_onnxruntime
    from edgecv.runtime.session import open_session

    load_onnxruntime()
    imported_ns = time.perf_counter_ns()
    before_mib = peak_rss_mib()
    path = Path(job["model"])
    handle = open_session(
        path, provider=job["provider"], threads=job["threads"], profile_prefix=job.get("profile_prefix")
    )
    loaded_ns = time.perf_counter_ns()
    session = handle.session
    if handle.manifest is not None:
        check_graph(handle, handle.manifest)
    spec = handle.manifest.input if handle.manifest else None
    feeds = _real_feeds(job, handle) or random_feeds(session.get_inputs(), job["batch"], spec, path.name, job["seed"])
    names = [o.name for o in session.get_outputs()]

    def run(i: int) -> Any:
        return session.run(names, feeds[i % len(feeds)])

    first_ns = time.perf_counter_ns()
    outputs = run(0)
    done_ns = time.perf_counter_ns()
    return _Loaded(run, handle, tuple(Path(p) for p in job.get("images") or ())), {
        "start_ms": (_FIRST_LINE_NS - job["spawned_ns"]) / 1e6,
        "import_ms": (imported_ns - import_ns) / 1e6,
        "load_ms": (loaded_ns - imported_ns) / 1e6,
        "first_run_ms": (done_ns - first_ns) / 1e6,
        "rss_before_load_mib": before_mib,
        "peak_rss_after_load_mib": peak_rss_mib(),
        "threads": handle.threads,
        "providers": list(handle.providers),
        "node_share": {k: v for k, v in handle.node_share.items() if v == v},  # NaN: this ONNX Runtime cannot tell
        "notes": list(handle.notes),
        "manifest": asdict(handle.manifest) if handle.manifest else None,
        "input_shapes": {name: list(np.shape(value)) for name, value in feeds[0].items()},
        "inputs": "photographs" if job.get("images") else "random",
        "feeds": len(feeds),
        "finite": all(bool(np.isfinite(o).all()) for o in outputs if getattr(o, "dtype", np.dtype("O")).kind == "f"),
    }


def _manifest(path: Path) -> dict[str, Any] | None:
    """Return a model's manifest without running it; in this process, because the file may come from anywhere."""
    from edgecv.runtime.session import open_session

    manifest = open_session(path, threads=1, optimize=False).manifest
    return asdict(manifest) if manifest else None


def _warm_up(loaded: _Loaded, max_seconds: float) -> dict[str, Any]:
    """Run until the medians of the last windows agree, or ``max_seconds`` are over."""
    from edgecv.benchmark.statistics import is_steady

    medians: list[float] = []
    runs = 0
    begin = time.perf_counter_ns()
    while not is_steady(medians) and time.perf_counter_ns() - begin < max_seconds * 1e9:
        samples = _timed(loaded.run, _WINDOW_NS, _WINDOW_RUNS, first=runs)
        runs += len(samples)
        medians.append(sorted(samples)[len(samples) // 2] / 1e6)
    seconds = (time.perf_counter_ns() - begin) / 1e9
    return {"runs": runs, "seconds": seconds, "steady": is_steady(medians), "last_median_ms": medians[-1]}


def _turn(loaded: _Loaded, turn_ms: float, min_runs: int) -> dict[str, Any]:
    """One unclocked run (caches belong to whoever ran last), then timed runs for about ``turn_ms``."""
    loaded.run(0)
    cpu_ns, switches = time.process_time_ns(), _involuntary_switches()
    samples = _timed(loaded.run, int(turn_ms * 1e6), min_runs, first=1)
    cpu_s = (time.process_time_ns() - cpu_ns) / 1e9
    return {
        "samples_ns": samples,
        "cpu_seconds": cpu_s,
        "involuntary_switches": _involuntary_switches() - switches,
    }


def _timed(run: Callable[[int], Any], span_ns: int, min_runs: int, first: int) -> list[int]:
    clock = time.perf_counter_ns
    samples: list[int] = []
    end = clock() + span_ns
    while True:
        begin = clock()
        run(first + len(samples))
        now = clock()
        samples.append(now - begin)
        if len(samples) >= min_runs and (now >= end or len(samples) >= MAX_RUNS_PER_TURN):
            return samples


def _memory(loaded: _Loaded) -> dict[str, Any]:
    return {"peak_rss_mib": peak_rss_mib()}


def _profile(loaded: _Loaded, runs: int) -> dict[str, Any]:
    """Run ``runs`` times and close ONNX Runtime's profile; answer with its file."""
    for i in range(runs):
        loaded.run(i)
    return {"profile": loaded.handle.session.end_profiling()}


def _end_to_end(loaded: _Loaded, **command: Any) -> dict[str, Any]:
    from edgecv.benchmark.end_to_end import time_images

    return time_images(loaded.handle, loaded.images, **command)


def _real_feeds(job: Mapping[str, Any], handle: Any) -> list[dict[str, Any]]:
    if not job.get("images"):
        return []
    from edgecv.benchmark.end_to_end import prepared_feeds

    return prepared_feeds(handle, [Path(p) for p in job["images"]], job["batch"])


def peak_rss_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB (VmHWM, or getrusage where there is none)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024  # bytes on macOS, KiB elsewhere


def _involuntary_switches() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _answer(answers: Any, content: Mapping[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, even inside a load that never returns (prctl(2))."""
    if sys.platform != "linux":
        return  # the end of stdin stops us there, once the command at hand is done
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)  # the parent was gone before we asked


if __name__ == "__main__":
    main()
