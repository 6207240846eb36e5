"""What the scripts of this folder share: ``PYTHON with_PEER.py JOB.json`` quantizes in a process, and a package set, of
its own.

The job names ``model`` (float32, NCHW), ``calibration`` (.npy of float32 inputs), ``output`` and the settings.
The answer, ``result.json`` beside the job, holds seconds (of the clock and of the CPU) and peak memory. Needs numpy
and the peer, nothing of edgecv.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]
Inputs = Callable[[], Iterator[np.ndarray]]


def run(package: str, distribution: str, quantize: Callable[[Job, Inputs], None]) -> None:
    """Quantize as the job says, or answer that ``package`` is missing; imports are outside the clock."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    answer = path.with_name("result.json")
    try:
        importlib.import_module(package)
    except ImportError as e:
        answer.write_text(json.dumps({"missing": str(e)}))
        return
    arrays = np.load(job["calibration"], mmap_mode="r")

    def inputs() -> Iterator[np.ndarray]:
        for i in range(len(arrays)):
            yield np.ascontiguousarray(arrays[i : i + 1])

    loaded = peak_mib()
    begin, cpu = time.perf_counter(), time.process_time()
    quantize(job, inputs)
    result = {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "loaded_rss_mib": loaded,
        "peak_rss_mib": peak_mib(),
        "version": metadata.version(distribution),
    }
    answer.write_text(json.dumps(result))


def peak_mib() -> float:
    """Peak resident memory of this process; ``getrusage`` starts with its parent's on Linux, so it comes second."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
