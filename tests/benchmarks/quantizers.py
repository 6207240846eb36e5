"""edgecv against other post-training quantizers on the same images: quantizers.py MODEL... --calib C --eval E.

    python tests/benchmarks/quantizers.py lite0.onnx --calib imagenet-calib --eval imagenet-eval \\
        --env nncf=nncf/bin/python --env quark=quark/bin/python --env aimet=aimet/bin/python

Every tool runs in a process and an empty folder of its own, with the same images; one that is not installed is named
with what installs it. Their packages do not fit into one environment, so ``--env NAME=PYTHON`` says whose interpreter
runs a tool. Peers are given the network from its normalized float32 image on, and are timed on it; edgecv's file takes
the photograph's bytes, and its normalization is inside its latency. ``edgecv METHOD`` is the command, with decoding and
judging on the clock; ``edgecv quantize_static`` its first rung as a library call on decoded arrays, as the peers' are.

Not collected by pytest: it takes minutes and measures the machine it runs on.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from peer_inputs import Arrays, Network, labelled_images, logits, split_network, write_arrays

from edgecv.benchmark import compare_latency
from edgecv.benchmark.plan import PRESETS
from edgecv.quantize.coverage import measure_coverage
from edgecv.runtime.host import host_facts
from edgecv.runtime.owners import load_onnxruntime

PEERS = Path(__file__).with_name("peers")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tool:
    """One row: which script makes it, in which environment, with which settings."""

    name: str
    peer: str
    install: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def script(self) -> Path:
        return PEERS / f"with_{self.peer}.py"


BY_CHANNEL = {"per_channel": True, "activation_type": "QUInt8", "weight_type": "QInt8"}
FIRST_RUNG, ENTROPY = "edgecv quantize_static", "ORT u8s8 entropy"
TOOLS = (
    Tool(FIRST_RUNG, "edgecv", "edgecv[tools]", {"library": True}),
    Tool(ENTROPY, "onnxruntime", "onnxruntime onnx", {**BY_CHANNEL, "calibrate_method": "Entropy"}),
    Tool("edgecv per-channel", "edgecv", "edgecv[tools]", {"method": "per-channel"}),
    Tool("edgecv round", "edgecv", "edgecv[tools]", {"method": "round"}),
    Tool("ORT defaults", "onnxruntime", "onnxruntime onnx"),
    Tool("ORT u8s8 MinMax", "onnxruntime", "onnxruntime onnx", BY_CHANNEL),
    Tool("NNCF", "nncf", "nncf onnxruntime onnx"),
    Tool("Quark u8s8 AdaRound", "quark", "amd-quark torch onnxruntime"),
    Tool("AIMET", "aimet", "aimet-onnx"),
    Tool("AIMET equalized, MSE", "aimet", "aimet-onnx", {"equalize": True}),
)


def main() -> None:
    options = read_options()
    environments = dict(e.split("=", 1) for e in options.env)
    tools = [t for t in TOOLS if not options.only or any(word in t.name for word in options.only)]
    if options.device:
        on_device = [
            replace(t, settings={**t.settings, "device": options.device}) for t in tools if "method" in t.settings
        ]
        tools += [replace(t, name=f"{t.name}, {options.device}") for t in on_device]
    report = []
    for model in options.models:
        with tempfile.TemporaryDirectory(prefix="edgecv-", dir=options.scratch) as folder:
            rows = compare(model, tools, environments, Path(folder), options)
        report.append({"model": model.name, "rows": rows})
        if not options.json:
            print_table(model.name, rows)
    host = host_facts(threads=options.threads, seed=0)
    if options.json:
        print(json.dumps({"models": report, "host": host}, indent=2))
    if options.output:
        options.output.write_text(json.dumps({"models": report, "host": host}, indent=2))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="Exported by edgecv: they carry a manifest.")
    parser.add_argument("--calib", type=Path, required=True, help="Photographs to calibrate on.")
    parser.add_argument("--eval", type=Path, required=True, help="Other photographs, labelled, to judge on.")
    parser.add_argument("--images", type=int, default=100, help="Calibration photographs.")
    parser.add_argument("--only", action="append", default=[], help="Rows whose name contains this; may be repeated.")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=PYTHON", help="E.g. quark=venv/bin/python")
    parser.add_argument("--adaround-iterations", type=int, default=100, help="Of Quark, whose own default is 1000.")
    parser.add_argument("--device", help="Also edgecv for this device profile, e.g. x86-vnni.")
    parser.add_argument("--repeat", type=int, default=1, help="Runs of each tool, in turns; seconds are the median.")
    parser.add_argument("--limit-s", type=float, default=1800, help="Give a tool up after this many seconds.")
    parser.add_argument("--seconds", type=float, default=2.0, help="Timed seconds per file; 0 leaves latency out.")
    parser.add_argument("--threads", default="1", help="Of the timed runs.")
    parser.add_argument("--scratch", type=Path, help="Where temporary folders go.")
    parser.add_argument("--keep", type=Path, help="Copy the quantized files here.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="Write all rows as JSON.")
    return parser.parse_args()


def compare(
    model: Path, tools: list[Tool], environments: dict[str, str], folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Quantize with every tool, judge every file, time all of them together."""
    network = split_network(model.resolve(), folder)
    calibration = labelled_images(network, options.calib).limited(options.images)
    arrays = write_arrays(network, calibration, folder, "calibration")
    judged = write_arrays(network, labelled_images(network, options.eval), folder, "evaluation")
    reference = float_scores(network, judged)
    rows: list[dict[str, Any]] = [{"tool": "float32", "size_mb": model.stat().st_size / 1e6, "loads": True}]
    rows[0] |= nearness(reference, reference, judged.labels)
    made: dict[str, Path] = {}
    runs: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in tools}
    for turn in range(options.repeat):
        for i, tool in enumerate(tools):
            python = environments.get(tool.peer, sys.executable)
            scratch = folder / f"{i}.{turn}"
            print(f"{model.stem}: {tool.name}", file=sys.stderr, flush=True)
            runs[tool.name].append(quantize(tool, python, network, arrays, scratch, options))
            made[tool.name] = scratch / "int8.onnx"
    for tool in tools:
        row = {"tool": tool.name, **median_run(runs[tool.name])}
        if "failed" not in row:
            row |= judge(made[tool.name], reference, judged)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                target = options.keep / f"{model.stem}.{tool.name.replace(' ', '-').replace(',', '')}.onnx"
                target.write_bytes(made[tool.name].read_bytes())
        rows.append(row)
    if options.seconds:
        add_latency(model, rows, made, options)
    return rows


def quantize(
    tool: Tool, python: str, network: Network, arrays: Arrays, scratch: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run one tool in a process and a folder of its own; return its answer, or why there is none."""
    scratch.mkdir()
    model = scratch / "float.onnx"
    model.write_bytes(network.body.read_bytes())  # a copy: not every tool leaves its input alone
    iterations = {"adaround_iterations": options.adaround_iterations} if tool.peer == "quark" else {}
    job = {
        "model": str(model),
        "source": str(network.source),
        "calibration": str(arrays.normalized),
        "images_file": str(arrays.images),
        "photographs": str(options.calib.resolve()),
        "images": options.images,
        "input": network.body_input,
        "output": str(scratch / "int8.onnx"),
        "settings": {**tool.settings, **iterations},
    }
    (scratch / "job.json").write_text(json.dumps(job))
    printed = scratch / "printed.txt"
    with printed.open("wb") as out:
        try:
            ended = subprocess.run(
                [python, str(tool.script), str(scratch / "job.json")],
                cwd=scratch,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                timeout=options.limit_s,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {options.limit_s:.0f} s"}
        except OSError as e:
            return {"failed": f"'{python}' does not start: {e.strerror}"}
    result = scratch / "result.json"
    answer: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    if "missing" in answer:
        return {"failed": f"not installed: pip install {tool.install}"}
    if ended.returncode or not answer:
        lines = [x.strip() for x in printed.read_text(errors="replace").splitlines() if x.strip()]
        return {"failed": (lines[-1] if lines else f"ended with code {ended.returncode}")[:200]}
    return answer if (scratch / "int8.onnx").exists() else {"failed": "reported success and wrote no file"}


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    if failed := [r for r in runs if "failed" in r]:
        return failed[0]
    clocks = ("seconds", "cpu_seconds")
    middle = {clock: median(r[clock] for r in runs) for clock in clocks}
    return {**runs[-1], **middle, "runs": [{clock: r[clock] for clock in clocks} for r in runs]}


def float_scores(network: Network, arrays: Arrays) -> Floats:
    """Return the logits of the float network, the same from the file itself and from its part for the peers."""
    whole, part = (logits(open_file(path), arrays) for path in (network.source, network.body))
    if np.abs(whole - part).max() > 1e-3 * np.abs(whole).max():
        raise SystemExit("the network without its pixel part gives other logits than the whole; it cannot be compared")
    return whole


def open_file(path: Path) -> Any:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def judge(path: Path, reference: Floats, arrays: Arrays) -> dict[str, Any]:
    """Load a file as ONNX Runtime would on the device and compare its logits with the float network's."""
    size = sum(p.stat().st_size for p in path.parent.glob("int8*") if p.suffix not in {".json", ".html"})
    row: dict[str, Any] = {"size_mb": size / 1e6}
    try:
        scores = logits(open_file(path), arrays)
    except Exception as e:  # onnxruntime's exceptions have no common base but this
        return row | {"loads": False, "refused": " ".join(str(e).split())[:200]}
    row |= {"loads": True, **nearness(reference, scores, arrays.labels)}
    try:
        coverage = measure_coverage(ir.load(path))
        row |= {"conv_int8": coverage.conv_int8, "conv_float": coverage.conv_float}
    except Exception as e:
        row["coverage_failed"] = str(e)[:200]
    return row


def nearness(reference: Floats, scores: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return top-1 (0..1), agreement of top-1, mean KL(float || int8) in nats, and the logits' SQNR in dB."""
    noise = float(np.square(reference - scores).sum())
    before, after = log_softmax(reference), log_softmax(scores)
    right = [float((x.argmax(1) == labels).mean()) for x in (reference, scores)]
    return {
        "n": len(labels),
        "top1": right[1],
        "drop_points": 100 * (right[0] - right[1]),
        "agreement": float((reference.argmax(1) == scores.argmax(1)).mean()),
        "kl": float((np.exp(before) * (before - after)).sum(1).mean()),
        "sqnr_db": 10 * math.log10(float(np.square(reference).sum()) / noise) if noise else None,
    }


def log_softmax(scores: Floats) -> Floats:
    shifted = scores - scores.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def add_latency(model: Path, rows: list[dict[str, Any]], made: dict[str, Path], options: argparse.Namespace) -> None:
    """Time every file that loads against the float one, interleaved."""
    timed = [row for row in rows[1:] if row.get("loads")]
    preset = replace(PRESETS["rapid"], min_seconds=options.seconds)
    files = [model, *(made[row["tool"]] for row in timed)]
    report = compare_latency(files, threads=options.threads, preset=preset)
    rows[0]["latency_p50_ms"] = report.results[0].latency_p50_ms
    for row, result in zip(timed, report.results[1:], strict=True):
        row["latency_p50_ms"] = result.latency_p50_ms
        if (ratio := result.speedup) is not None:
            row["speedup"] = [ratio.estimate, ratio.low, ratio.high]


def print_table(name: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}, {rows[0]['n']} images")
    print(
        f"{'tool':<28}{'top-1 %':>8}{'drop':>7}{'agree %':>9}{'KL':>9}{'SQNR dB':>9}{'int8 conv':>11}"
        f"{'seconds':>9}{'CPU s':>8}{'peak MiB':>10}{'MB':>7}  {'over float32':<18}loads"
    )
    for row in rows:
        if "failed" in row:
            print(f"{row['tool']:<28}  {row['failed']}")
        elif not row["loads"]:
            print(f"{row['tool']:<28}  ONNX Runtime refuses the file: {row['refused']}")
        else:
            print(table_line(row))
    runs = {row["tool"]: row["runs"] for row in rows if "runs" in row}
    if FIRST_RUNG in runs and ENTROPY in runs:
        for clock, name in (("seconds", "time"), ("cpu_seconds", "CPU time")):
            ratios = [b[clock] / a[clock] for a, b in zip(runs[FIRST_RUNG], runs[ENTROPY], strict=True)]
            each = ", ".join(f"{r:.1f}" for r in ratios)
            print(f"quantize_static with the entropy method: {median(ratios):.1f}x the first rung's {name} ({each})")


def table_line(row: dict[str, Any]) -> str:
    sqnr = "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.2f}"
    convs = f"{row['conv_int8']}/{row['conv_int8'] + row['conv_float']}" if "conv_int8" in row else ""
    seconds, cpu = (f"{row[k]:.1f}" if k in row else "" for k in ("seconds", "cpu_seconds"))
    peak = f"{row['peak_rss_mib']:.0f}" if "peak_rss_mib" in row else ""
    speed = "{:.2f} ({:.2f}-{:.2f})".format(*row["speedup"]) if "speedup" in row else ""
    return (
        f"{row['tool']:<28}{100 * row['top1']:>8.2f}{row['drop_points']:>7.2f}{100 * row['agreement']:>9.2f}"
        f"{row['kl']:>9.5f}{sqnr:>9}{convs:>11}{seconds:>9}{cpu:>8}{peak:>10}{row['size_mb']:>7.2f}  {speed:<18}yes"
    )


if __name__ == "__main__":
    main()
