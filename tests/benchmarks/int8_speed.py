"""How much faster than float32 is int8, and what each rewrite adds: int8_speed.py MODEL... --data CALIB.

    python tests/benchmarks/int8_speed.py resnet50.onnx mobilenetv3_large_100.onnx --data imagenet-calib

Every model is quantized with all rewrites, with none and with each left out by itself; all are timed against the float
file, interleaved, each in a process of its own (``edgecv.benchmark``). "gain" is how much slower the file without that
rewrite is than the one with all: a rewrite whose interval does not lie above 1 on some network does not pay here. SQNR
is that of the logits on the images calibrated on: it shows what a rewrite moves, not how good the model is.

Not collected by pytest: it takes minutes and measures the machine it runs on.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.benchmark import compare_latency
from edgecv.benchmark.plan import PRESETS
from edgecv.benchmark.statistics import Interval, paired_ratio
from edgecv.data.calibration import draw_calibration
from edgecv.data.folder import open_dataset
from edgecv.graph.model_file import load_model, require_manifest, save_model
from edgecv.pipeline.quantize_request import input_batches
from edgecv.quantize.rewrites import check_rewrites
from edgecv.quantize.sessions import open_graph
from edgecv.quantize.static import quantize_static
from edgecv.runtime.host import host_facts


def variants(model: Path, data: Path, images: int, folder: Path) -> Iterator[tuple[str, Path, dict[str, Any], float]]:
    """Yield name, file, summary and SQNR in dB of every variant; rewrites that find nothing to do are left out."""
    loaded = load_model(model)
    manifest = require_manifest(loaded, model)
    dataset = open_dataset(data)
    batches = input_batches(draw_calibration(dataset, min(images, len(dataset)), seed=0), manifest)
    names = check_rewrites(None)
    wanted: dict[str, tuple[str, ...]] = {"all": names, "none": ()}
    while wanted:
        name = next(iter(wanted))
        found = quantize_static(loaded, manifest, batches, rewrites=wanted.pop(name))
        if name == "all":
            used = [r["name"] for r in found.summary["rewrites"] if r["kept"]]
            wanted |= {f"without {n}": tuple(x for x in names if x != n) for n in used if len(used) > 1}
        path = folder / f"{model.stem}.{name.replace(' ', '-')}.onnx"
        save_model(found.model, path, manifest)
        yield name, path, dict(found.summary), sqnr_db(loaded, found.model, batches())


def sqnr_db(reference: Any, candidate: Any, batches: Iterator[np.ndarray]) -> float:
    """Return signal to error of the outputs in dB."""
    sessions = [open_graph(m) for m in (reference, candidate)]
    signal = noise = 0.0
    for batch in batches:
        a, b = (s.run(None, {s.get_inputs()[0].name: batch})[0].astype(np.float64) for s in sessions)
        signal += float(np.square(a).sum())
        noise += float(np.square(a - b).sum())
    return 10 * math.log10(signal / max(noise, 1e-300))


def measure(model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for every variant of a model."""
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        made = list(variants(model, options.data, options.images, Path(folder)))
        preset = replace(PRESETS["rapid"], min_seconds=options.seconds)
        report = compare_latency([model, *(path for _, path, _, _ in made)], threads=options.threads, preset=preset)
    whole = np.array(report.results[1].turn_medians_ms)
    rows = []
    for (name, _, summary, sqnr), result in zip(made, report.results[1:], strict=True):
        gain = paired_ratio(np.array(result.turn_medians_ms), whole, seed=0) if name != "all" else None
        row = {
            "model": model.name,
            "variant": name,
            "latency_p50_ms": result.latency_p50_ms,
            "reference_p50_ms": report.results[0].latency_p50_ms,
            "speedup": interval(result.speedup),
            "gain": interval(gain),
            "sqnr_db": sqnr,
            "coverage": summary["coverage"],
            "rewrites": summary["rewrites"],
        }
        rows.append(row)
    return rows


def interval(value: Interval | None) -> list[float] | None:
    return None if value is None else [value.estimate, value.low, value.high]


def shown(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="Timed seconds per file; 6 is the rapid preset.")
    parser.add_argument("--threads", default="1")
    parser.add_argument("-o", "--output", type=Path, help="Write all rows as JSON.")
    options = parser.parse_args()
    print(f"{'model':<34}{'rewrites':<36}{'ms':>7}  {'over float32':<18}{'gain':<18}{'SQNR dB':>7}")
    rows = []
    for model in options.models:
        for row in measure(model, options):
            rows.append(row)
            left = f"{Path(row['model']).stem:<34}{row['variant']:<36}{row['latency_p50_ms']:>7.2f}"
            print(f"{left}  {shown(row['speedup']):<18}{shown(row['gain']):<18}{row['sqnr_db']:>7.2f}", flush=True)
    if options.output:
        host = host_facts(threads=options.threads, seed=0, n=options.images)
        options.output.write_text(json.dumps({"rows": rows, "host": host}, indent=2))


if __name__ == "__main__":
    main()
