"""edgecv's fastest configuration against other engines on this CPU: engines.py MODEL --int8 FILE... --calib C --eval E.

    python tests/benchmarks/engines.py lite0.onnx --int8 lite0.int8.onnx --calib imagenet-calib --eval imagenet-eval \\
        --env openvino=openvino/bin/python --env litert=litert/bin/python

Batch 1, every engine in a process of its own, rounds interleaved in one run, ratios to ONNX Runtime's float32. edgecv
picks its configuration (file and provider) by a measurement of its own beforehand. Each engine answers real images too:
one that agrees less with the float network than edgecv's pick is marked, and so is one whose float answers are others.
Engines are given the normalized image; edgecv's files take the photograph's bytes and normalize inside the clock.
LiteRT and ExecuTorch convert the PyTorch network: the manifest names it, ``--weights`` may be needed.

Not collected by pytest: it takes minutes and measures the machine it runs on.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from peer_inputs import Arrays, Network, labelled_images, split_network, write_arrays

from edgecv.benchmark.latency import run_benchmark
from edgecv.benchmark.plan import PRESETS, Preset, plan_candidates
from edgecv.benchmark.rounds import Turns, run_rounds, warm_up
from edgecv.benchmark.statistics import paired_ratio
from edgecv.errors import EdgecvError, EnvironmentRefusedError
from edgecv.runtime.host import host_facts
from edgecv.runtime.session import open_session

PEERS = Path(__file__).with_name("peers")
FLOAT_SLACK = 0.01
"""Relative logit error up to which a float32 engine counts as computing the same."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One row: how it is made and what runs it."""

    name: str
    engine: str
    suffix: str
    install: str
    settings: dict[str, Any] = field(default_factory=dict)


ENGINES = (
    Engine("OpenVINO fp32", "openvino", ".xml", "openvino"),
    Engine("OpenVINO int8 (NNCF)", "openvino", ".xml", "openvino nncf", {"int8": True}),
    Engine("ncnn fp32", "ncnn", ".ncnn", "ncnn pnnx"),
    Engine("MNN fp32", "mnn", ".mnn", "MNN numpy"),
    Engine("MNN int8 weights", "mnn", ".mnn", "MNN numpy", {"int8": True}),
    Engine("LiteRT fp32", "litert", ".tflite", "litert-torch ai-edge-litert"),
    Engine("LiteRT int8", "litert", ".tflite", "litert-torch ai-edge-litert", {"int8": True}),
    Engine("ExecuTorch fp32", "executorch", ".pte", "executorch"),
    Engine("ExecuTorch int8", "executorch", ".pte", "executorch", {"int8": True}),
)


class Worker:
    """A process that runs one engine; ``ask`` as the workers of ``edgecv.benchmark`` have it."""

    def __init__(self, python: str, spec: dict[str, Any], folder: Path) -> None:
        job = folder / "spec.json"
        job.write_text(json.dumps(spec))
        self._printed = (folder / "printed.txt").open("wb")
        self._process = subprocess.Popen(
            [python, str(PEERS / "engine.py"), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            cwd=folder,
            text=True,
        )
        self._read()

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._printed.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(last_line(Path(self._printed.name)) or f"ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="edgecv-", dir=options.scratch) as name:
        folder = Path(name)
        network = split_network(options.model.resolve(), folder)
        calibration = labelled_images(network, options.calib).limited(options.images)
        arrays = write_arrays(network, calibration, folder, "calibration")
        judged = write_arrays(
            network, labelled_images(network, options.eval).limited(options.judge_images), folder, "evaluation"
        )
        options.provider, refused = usable_providers(options.model, options.provider or ["cpu"])
        specs, failed = prepare(network, arrays, judged, folder, options)
        failed += refused
        tables: list[dict[str, Any]] = []
        for threads in options.threads.split(","):
            pick = pick_configuration(options, threads)
            rows = measure(specs, int(threads), pick, folder, options)
            tables.append({"threads": int(threads), "pick": pick, "rows": rows + failed})
            if not options.json:
                print_table(options.model.name, tables[-1], len(judged.labels))
    report = {"model": options.model.name, "random_init": options.random_init, "tables": tables}
    report["host"] = host_facts(threads=options.threads, seed=0, n=len(judged.labels))
    if options.json:
        print(json.dumps(report, indent=2))
    if options.output:
        options.output.write_text(json.dumps(report, indent=2))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="float32, exported by edgecv: it carries a manifest.")
    parser.add_argument("--int8", type=Path, action="append", required=True, help="Made of it by edgecv quantize.")
    parser.add_argument("--calib", type=Path, required=True, help="Photographs to calibrate the engines on.")
    parser.add_argument("--eval", type=Path, required=True, help="Photographs every engine answers.")
    parser.add_argument("--images", type=int, default=100, help="Calibration photographs.")
    parser.add_argument("--judge-images", type=int, default=100, help="Photographs to answer.")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=PYTHON", help="E.g. ncnn=venv/bin/python")
    parser.add_argument("--provider", action="append", help="edgecv's providers to choose from (cpu).")
    parser.add_argument("--only", action="append", default=[], help="Engines whose name contains this.")
    parser.add_argument("--weights", type=Path, help="State dict of the network, where the manifest names a file.")
    parser.add_argument("--random-init", action="store_true", help="Its weights are random: agreement says nothing.")
    parser.add_argument("--threads", default="1", help="E.g. 1,2")
    parser.add_argument("--seconds", type=float, default=4.0, help="Timed seconds per engine.")
    parser.add_argument("--limit-s", type=float, default=900, help="Give a conversion up after this many seconds.")
    parser.add_argument("--scratch", type=Path, help="Where temporary folders go.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="Write the report as JSON.")
    return parser.parse_args()


def prepare(
    network: Network, arrays: Arrays, judged: Arrays, folder: Path, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Convert the network for every engine; return what to run, and the rows of what failed."""
    environments = dict(e.split("=", 1) for e in options.env)
    own: dict[str, Any] = {"engine": "edgecv", "images": str(judged.images), "python": sys.executable}
    reference = {"name": "ONNX Runtime fp32", "path": str(network.source), "provider": "cpu"}
    specs = [{**own, **reference}]
    for path in [options.model, *options.int8]:
        for provider in options.provider:
            if path is not options.model or provider != "cpu":
                label = f"edgecv {path.stem} {provider}"
                specs.append({**own, "name": label, "path": str(path.resolve()), "provider": provider})
    failed = []
    engines = [e for e in ENGINES if not options.only or any(word in e.name for word in options.only)]
    program = write_program(network, folder, options) if any(e.suffix in (".tflite", ".pte") for e in engines) else ""
    for i, engine in enumerate(engines):
        scratch = folder / f"engine{i}"
        scratch.mkdir()
        print(f"converting: {engine.name}", file=sys.stderr, flush=True)
        python = environments.get(engine.engine, sys.executable)
        why = convert(engine, python, network, arrays, program, scratch, options.limit_s)
        if why:
            failed.append({"name": engine.name, "failed": why})
            continue
        spec = {
            "engine": engine.engine,
            "name": engine.name,
            "path": str(scratch / f"converted{engine.suffix}"),
            "images": str(judged.normalized),
            "python": python,
            "input": network.body_input,
            "output": network.classifier.manifest.output.name,
            "shape": list(np.load(judged.normalized, mmap_mode="r").shape[1:]),
            **engine.settings,
        }
        specs.append(spec)
    return specs, failed


def convert(
    engine: Engine, python: str, network: Network, arrays: Arrays, program: str, scratch: Path, limit_s: float
) -> str:
    """Run the conversion in a process and folder of its own; return why it failed, or nothing."""
    model = scratch / "float.onnx"
    model.write_bytes(network.body.read_bytes())
    job: dict[str, Any] = {
        "model": str(model),
        "program": program,
        "calibration": str(arrays.normalized),
        "input": network.body_input,
        "output": str(scratch / f"converted{engine.suffix}"),
        "settings": engine.settings,
    }
    (scratch / "job.json").write_text(json.dumps(job))
    with (scratch / "printed.txt").open("wb") as out:
        try:
            ended = subprocess.run(
                [python, str(PEERS / f"into_{engine.engine}.py"), str(scratch / "job.json")],
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"conversion not done after {limit_s:.0f} s"
        except OSError as e:
            return f"'{python}' does not start: {e.strerror}"
    result = scratch / "result.json"
    if result.exists() and "missing" in json.loads(result.read_text()):
        return f"not installed: pip install {engine.install}"
    if ended.returncode or not result.exists():
        return last_line(scratch / "printed.txt") or f"conversion ended with code {ended.returncode}"
    return "" if Path(job["output"]).exists() else "conversion reported success and wrote no file"


def write_program(network: Network, folder: Path, options: argparse.Namespace) -> str:
    """Export the PyTorch network that the manifest names, for the engines that start from it."""
    import torch

    from edgecv.nn.models import build_network

    manifest = network.classifier.manifest
    built = build_network(str(manifest.architecture), weights=options.weights, random_init=options.random_init)
    program = torch.export.export(built.module.eval(), (torch.zeros(1, *manifest.input.input_size),))
    path = folder / "network.pt2"
    torch.export.save(program, path)
    return str(path)


def usable_providers(model: Path, wanted: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the providers that start here, and rows that say why the others do not."""
    usable, refused = [], []
    for provider in wanted:
        try:
            open_session(model, provider=provider, threads=1)
            usable.append(provider)
        except EnvironmentRefusedError as e:
            refused.append({"name": f"edgecv {provider}", "failed": str(e)})
    return usable, refused


def pick_configuration(options: argparse.Namespace, threads: str) -> str:
    """Let edgecv choose among its files and providers by its own benchmark; return the row's name."""
    candidates = plan_candidates([options.model, *options.int8], options.provider, threads=[threads])
    report = run_benchmark(candidates, replace(PRESETS["rapid"], min_seconds=options.seconds))
    best = min(report.results, key=lambda r: r.latency_p50_ms)
    if best.model == str(options.model) and best.provider == "cpu":
        return "ONNX Runtime fp32"
    return f"edgecv {Path(best.model).stem} {best.provider}"


def measure(
    specs: list[dict[str, Any]], threads: int, pick: str, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time all engines, interleaved, and compare their answers; the first is the reference."""
    rows: list[dict[str, Any]] = []
    workers: list[Worker] = []
    scores: list[np.ndarray] = []
    failed: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        for i, spec in enumerate(specs):
            scratch = folder / f"worker{threads}.{i}"
            scratch.mkdir()
            try:
                worker = Worker(spec["python"], {**spec, "threads": threads}, scratch)
                stack.callback(worker.close)
                worker.ask("outputs", path=str(scratch / "logits.npy"))
            except (RuntimeError, OSError, EdgecvError) as e:
                failed.append({"name": spec["name"], "failed": str(e)[:200]})
                continue
            workers.append(worker)
            scores.append(np.load(scratch / "logits.npy").astype(np.float64))
            rows.append({"name": spec["name"]})
        preset = replace(PRESETS["rapid"], min_seconds=options.seconds)
        for row, turns, answer in zip(rows, timed(workers, preset), scores, strict=True):
            row |= figures(turns, answer, scores[0])
            row["turns"] = turns
    reference = rows[0]["turns"].medians_ms
    for row in rows:
        medians = row.pop("turns").medians_ms
        ratio = paired_ratio(reference, medians, seed=0)
        row["speedup"] = None if ratio is None else [ratio.estimate, ratio.low, ratio.high]
    mark(rows, pick)
    return rows + failed


def timed(workers: list[Worker], preset: Preset) -> Iterator[Turns]:
    yield from run_rounds(workers, [warm_up(w, preset) for w in workers], preset)


def figures(turns: Turns, answer: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    return {
        "latency_p50_ms": float(np.median(turns.all_ms)),
        "rounds": len(turns.samples_ms),
        "agreement": float((answer.argmax(1) == reference.argmax(1)).mean()),
        "logit_error": float(np.linalg.norm(answer - reference) / np.linalg.norm(reference)),
    }


def mark(rows: list[dict[str, Any]], pick: str) -> None:
    """Say which row edgecv picked, and whose answers are others."""
    ours = next((row for row in rows if row["name"] == pick), rows[0])
    for row in rows:
        if row is ours:
            row["note"] = "edgecv's pick"
        elif row["name"].endswith("fp32") and row["logit_error"] > FLOAT_SLACK:
            row["note"] = "OTHER ANSWERS than the float network"
        elif row["agreement"] < ours["agreement"]:
            row["note"] = "agrees less than edgecv's pick"


def print_table(name: str, table: dict[str, Any], images: int) -> None:
    print(f"\n{name}, batch 1, {table['threads']} threads, answers on {images} photographs")
    print(f"{'engine':<40}{'p50 ms':>8}  {'over ORT float32':<18}{'agree %':>9}{'logit error':>12}  note")
    for row in sorted(table["rows"], key=lambda r: -(r.get("speedup") or [0])[0]):
        if "failed" in row:
            print(f"{row['name']:<40}  {row['failed']}")
            continue
        speed = "{:.2f} ({:.2f}-{:.2f})".format(*row["speedup"]) if row["speedup"] else "too few rounds"
        print(
            f"{row['name']:<40}{row['latency_p50_ms']:>8.2f}  {speed:<18}{100 * row['agreement']:>9.2f}"
            f"{row['logit_error']:>12.4f}  {row.get('note', '')}"
        )


def last_line(printed: Path) -> str:
    lines = [x.strip() for x in printed.read_text(errors="replace").splitlines() if x.strip()]
    return lines[-1][:200] if lines else ""


if __name__ == "__main__":
    main()
