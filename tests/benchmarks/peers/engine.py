"""One engine in a process of its own: ``PYTHON engine.py SPEC.json``, driven over its pipes, one JSON object a line.

``warm_up`` and ``turn`` answer as the workers of ``edgecv bench`` do; ``outputs`` writes the logits of real images.
What an engine wants done to the image first (a copy, codes) is outside the clock. Needs numpy and the engine, nothing
of edgecv, save for the engine that is edgecv.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Opened = tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]
"""What turns an image into the engine's own input, outside the clock, and what runs it."""


def as_it_is(x: np.ndarray) -> np.ndarray:
    return x


def open_edgecv(spec: dict[str, Any]) -> Opened:
    from edgecv.runtime.session import open_session

    session = open_session(Path(spec["path"]), provider=spec["provider"], threads=spec["threads"]).session
    name = session.get_inputs()[0].name
    return as_it_is, lambda x: session.run(None, {name: x})[0]


def open_openvino(spec: dict[str, Any]) -> Opened:
    import openvino  # type: ignore[import-not-found,unused-ignore]

    settings = {
        "INFERENCE_NUM_THREADS": spec["threads"],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(spec["path"], "CPU", settings).create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        request.infer({0: x}, share_inputs=True)
        return np.asarray(request.get_output_tensor(0).data)

    return as_it_is, run


def open_ncnn(spec: dict[str, Any]) -> Opened:
    import ncnn  # type: ignore[import-not-found,unused-ignore]

    net = ncnn.Net()
    net.opt.num_threads = spec["threads"]
    net.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.load_param(spec["path"] + ".param")
    net.load_model(spec["path"] + ".bin")
    entry, end = net.input_names()[0], net.output_names()[0]

    def run(x: Any) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input(entry, x)
        return np.array(extractor.extract(end)[1])

    return lambda x: ncnn.Mat(x[0]).clone(), run


def open_mnn(spec: dict[str, Any]) -> Opened:
    import MNN  # type: ignore[import-not-found,unused-ignore]

    config: dict[str, Any] = {"backend": "CPU", "numThread": spec["threads"], "precision": "high"}
    if spec.get("int8"):
        config["memory"] = "low"  # computes in int8 where weights are
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file(spec["path"], [spec["input"]], [spec["output"]], runtime_manager=manager)

    def prepare(x: np.ndarray) -> Any:
        place = MNN.expr.const(x, list(x.shape), MNN.expr.NCHW, MNN.expr.float)
        return MNN.expr.convert(place, MNN.expr.NCHW)

    def run(x: Any) -> np.ndarray:
        return np.asarray(MNN.expr.convert(net.forward(x), MNN.expr.NCHW).read())

    return prepare, run


def open_litert(spec: dict[str, Any]) -> Opened:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found,unused-ignore]

    interpreter = Interpreter(model_path=spec["path"], num_threads=spec["threads"])
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def coded(x: np.ndarray) -> np.ndarray:
        if entry["dtype"] == np.float32:
            return x
        scale, zero = entry["quantization"]
        limits = np.iinfo(entry["dtype"])
        return np.asarray(np.clip(np.round(x / scale + zero), limits.min, limits.max), entry["dtype"])

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        y = interpreter.get_tensor(end["index"])
        if y.dtype == np.float32:
            return np.asarray(y)
        scale, zero = end["quantization"]
        return np.asarray((y.astype(np.float32) - zero) * np.float32(scale))

    return coded, run


def open_executorch(spec: dict[str, Any]) -> Opened:
    import torch
    from executorch.extension.pybindings import portable_lib  # type: ignore[import-not-found,unused-ignore]
    from executorch.runtime import Runtime  # type: ignore[import-not-found,unused-ignore]

    with contextlib.suppress(AttributeError):
        portable_lib._unsafe_reset_threadpool(spec["threads"])
    method = Runtime.get().load_program(spec["path"]).load_method("forward")
    return torch.from_numpy, lambda x: method.execute([x])[0].numpy()


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(spec["threads"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints
    images = np.load(spec["images"], mmap_mode="r")
    prepare, run = globals()[f"open_{spec['engine']}"](spec)
    feed = prepare(np.ascontiguousarray(images[:1]))
    run(feed)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "warm_up":
            answer = warm_up(run, feed, command["max_seconds"])
        elif command["do"] == "turn":
            answer = turn(run, feed, command["turn_ms"], command["min_runs"])
        else:
            inputs = (prepare(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images)))
            rows = [np.array(run(x), np.float32).reshape(-1) for x in inputs]  # copies: engines reuse their buffers
            np.save(command["path"], np.stack(rows))
            answer = {}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # some engines hang or crash when they are taken down


def warm_up(run: Callable[[Any], np.ndarray], feed: Any, max_seconds: float) -> dict[str, Any]:
    """Run until three windows in a row agree within 5 %."""
    medians: list[float] = []
    runs, steady = 0, False
    begin = time.perf_counter()
    while not steady and time.perf_counter() - begin < max_seconds:
        samples = timed(run, feed, 50, 3)
        runs += len(samples)
        medians.append(sorted(samples)[len(samples) // 2] / 1e6)
        steady = len(medians) >= 3 and max(medians[-3:]) <= 1.05 * min(medians[-3:])
    return {"runs": runs, "seconds": time.perf_counter() - begin, "steady": steady, "last_median_ms": medians[-1]}


def turn(run: Callable[[Any], np.ndarray], feed: Any, turn_ms: float, min_runs: int) -> dict[str, Any]:
    run(feed)
    cpu = time.process_time()
    samples = timed(run, feed, turn_ms, min_runs)
    return {"samples_ns": samples, "cpu_seconds": time.process_time() - cpu, "involuntary_switches": 0}


def timed(run: Callable[[Any], np.ndarray], feed: Any, span_ms: float, min_runs: int) -> list[int]:
    clock = time.perf_counter_ns
    samples: list[int] = []
    end = clock() + span_ms * 1e6
    while len(samples) < min_runs or clock() < end:
        begin = clock()
        run(feed)
        samples.append(clock() - begin)
    return samples


if __name__ == "__main__":
    main()
