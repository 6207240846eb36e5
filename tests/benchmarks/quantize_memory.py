"""Time and peak memory of ``quantize_static``: quantize_memory.py MODEL --data CALIB [--eval EVAL].

Each row is a process of its own, so that the peak is that row's. A number of images above what the folder holds repeats
them. Decoding is inside the clock, as it is for a user. With ``--eval`` the quantized model's agreement with the float
one on other images and the SQNR of the logits are printed too.
"""

import argparse
import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.runtime.host import host_facts, usable_cores

BATCH = 4


def inputs(folder: Path, spec: Any, count: int) -> Iterator[np.ndarray]:
    """Yield ``count`` images of ``folder`` as the model takes them, again from the start when they run out."""
    from edgecv.data.batches import iter_batches
    from edgecv.data.folder import open_dataset
    from edgecv.runtime.preprocess import to_model_input

    dataset = open_dataset(folder)
    left = count
    while left:
        for batch in iter_batches(dataset, spec, BATCH):
            part = batch.images[:left]
            left -= len(part)
            yield to_model_input(part, spec)
            if not left:
                return


def measure(model_file: Path, data: Path, evaluation: Path | None, count: int, ranges: str) -> dict[str, Any]:
    """Quantize in this process; return seconds, MiB and, with ``evaluation``, how near the result is."""
    from edgecv.graph.model_file import load_model, require_manifest
    from edgecv.quantize.static import quantize_static

    model = load_model(model_file)
    manifest = require_manifest(model, model_file)
    before = peak_mib()
    begin = time.perf_counter()
    found = quantize_static(model, manifest, lambda: inputs(data, manifest.input, count), ranges=ranges)
    row = {
        "images": count,
        "ranges": ranges,
        "seconds": time.perf_counter() - begin,
        "peak_rss_mib": peak_mib(),
        "loaded_rss_mib": before,
        "coverage": found.summary["coverage"],
    }
    return row | (nearness(model, found.model, evaluation, manifest.input) if evaluation else {})


def nearness(reference: Any, candidate: Any, folder: Path, spec: Any) -> dict[str, Any]:
    """Return agreement (0..1) and logit SQNR in dB over a folder of images."""
    from edgecv.data.folder import open_dataset
    from edgecv.quantize.sessions import open_graph

    sessions = [open_graph(m) for m in (reference, candidate)]
    same = total = 0
    signal = noise = 0.0
    for batch in inputs(folder, spec, len(open_dataset(folder))):
        a, b = (s.run(None, {spec.name: batch})[0].astype(np.float64) for s in sessions)
        same += int((a.argmax(1) == b.argmax(1)).sum())
        total += len(a)
        signal += float(np.square(a).sum())
        noise += float(np.square(a - b).sum())
    return {"agreement": same / total, "n": total, "sqnr_db": 10 * math.log10(signal / noise)}


def peak_mib() -> float:
    """Peak resident memory of this process (Linux counts in KiB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path)
    parser.add_argument("--images", default="32,100,1000")
    parser.add_argument("--ranges", default="mse")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    rows = []
    jobs = [(int(n), m) for m in options.ranges.split(",") for n in options.images.split(",")]
    for count, ranges in jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (options.model, options.data, options.eval, count, ranges)
            rows.append(pool.apply(measure, arguments))
        if not options.json:
            print_row(rows[-1], first=len(rows) == 1)
    if options.json:
        report = {"model": options.model.name, "rows": rows, "host": host_facts(threads=usable_cores(), seed=0)}
        print(json.dumps(report, indent=2))


def print_row(row: dict[str, Any], *, first: bool) -> None:
    if first:
        print("images  ranges      seconds  peak MiB  int8 conv  agreement  SQNR dB")
    coverage = row["coverage"]
    convs = f"{coverage['conv_int8']}/{coverage['conv_int8'] + coverage['conv_float']}"
    near = f"{row['agreement']:>9.2%}  {row['sqnr_db']:>7.2f}" if "agreement" in row else ""
    line = f"{row['images']:>6}  {row['ranges']:<10}  {row['seconds']:>7.1f}  {row['peak_rss_mib']:>8.0f}"
    print(f"{line}  {convs:>9}  {near}", flush=True)


if __name__ == "__main__":
    main()
