"""What ``model(array)`` costs over the bare session: python tests/benchmarks/runtime_overhead.py MODEL.

Both are run in turn, the order changing with every pair, so that load and clock drift hit both alike. The figure is the
median of the paired differences with a bootstrap interval, in microseconds and as a share of the bare session's median.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgecv.runtime import Model
from edgecv.runtime.host import host_facts


def paired_ns(first: Callable[[], object], second: Callable[[], object], pairs: int) -> np.ndarray:
    """Return int64 of shape (pairs, 2): nanoseconds of ``first`` and of ``second``."""
    clock = time.perf_counter_ns
    samples = np.empty((pairs, 2), np.int64)
    for i in range(pairs):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            begin = clock()
            (first, second)[which]()
            samples[i, which] = clock() - begin
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    model = Model.load(options.model, threads=options.threads)
    spec, session = model.manifest.input, model.session.session
    pixels = rng.integers(0, 256, (*spec.input_size[1:], 3), dtype=np.uint8)
    feed = {spec.name: pixels[None]}
    if spec.dtype != "uint8" or spec.layout != "NHWC":
        raise SystemExit("this compares with a session fed uint8 (N, H, W, 3); name a model exported so")
    outputs = [model.manifest.output.name]

    def bare() -> object:
        return session.run(outputs, feed)

    def whole() -> object:
        return model(pixels)

    paired_ns(bare, whole, max(20, options.pairs // 10))  # warm-up
    samples = paired_ns(bare, whole, options.pairs)
    differences = samples[:, 1] - samples[:, 0]
    draws = rng.integers(0, len(differences), (2000, len(differences)))
    low, high = np.percentile(np.median(differences[draws], axis=1), (2.5, 97.5))
    bare_ns = float(np.median(samples[:, 0]))
    result = {
        "model": options.model.name,
        "bare_session_p50_ms": bare_ns / 1e6,
        "model_call_p50_ms": float(np.median(samples[:, 1])) / 1e6,
        "overhead_p50_us": float(np.median(differences)) / 1e3,
        "overhead_interval_us": [low / 1e3, high / 1e3],
        "overhead_percent": 100 * float(np.median(differences)) / bare_ns,
        "overhead_interval_percent": [100 * low / bare_ns, 100 * high / bare_ns],
    }
    facts = host_facts(threads=model.session.threads, n=options.pairs, seed=options.seed)
    if options.json:
        print(json.dumps(result | facts, indent=2))
        return
    for name, value in (result | {k: facts[k] for k in ("cpu", "threads", "n")}).items():
        print(f"{name:28} {value if isinstance(value, str | int) else np.round(value, 3)}")


if __name__ == "__main__":
    main()
