"""How often does a file benchmarked against itself come out as "no difference"? It should in at least 95 of 100 tries.

    python tests/benchmarks/self_comparison.py MODEL.onnx --tries 20 --seconds 2 --threads 1

Not collected by pytest: it takes minutes and measures the machine it runs on.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv.benchmark import compare_latency
from edgecv.benchmark.plan import PRESETS
from edgecv.benchmark.report import SMALLEST_DIFFERENCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0, help="Timed seconds per side; 6 is the rapid preset.")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="Write every try as one JSON line.")
    options = parser.parse_args()
    preset = replace(PRESETS["rapid"], min_seconds=options.seconds)
    ratios, outside, called = [], 0, 0
    for i in range(options.tries):
        report = compare_latency(
            [options.model, options.model], threads=options.threads, batch=options.batch, preset=preset, seed=i
        )
        speedup = report.results[1].speedup
        assert speedup is not None
        ratios.append(speedup.estimate)
        outside += speedup.excludes(1.0)
        called += speedup.excludes(1.0, SMALLEST_DIFFERENCE)
        noise = report.noise.other_work_cores
        print(
            f"try {i + 1}: {speedup.estimate:.4f} [{speedup.low:.4f}, {speedup.high:.4f}], "
            f"{report.results[0].rounds} rounds, other work {math.nan if noise is None else noise:.2f} cores",
            flush=True,
        )
        if options.output:
            with options.output.open("a") as f:
                medians = [r.turn_medians_ms for r in report.results]
                f.write(json.dumps({"seed": i, "estimate": speedup.estimate, "turn_medians_ms": medians}) + "\n")
    logs = np.abs(np.log(ratios))
    print(
        f"{options.tries - called} of {options.tries} tries: no difference "
        f"({options.tries - outside} by the interval alone, without the {SMALLEST_DIFFERENCE:.0%} margin); "
        f"|ratio - 1|: median {np.median(logs):.2%}, largest {logs.max():.2%}"
    )


if __name__ == "__main__":
    main()
