"""What this machine can do at most, measured: float32 and int8 products through ONNX Runtime, and memory traffic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from edgecv.progress import Progress, no_progress
from edgecv.runtime.session import open_session

_SIDES = (384, 512, 1024)
"""Of the square matrices; the best counts. Large ones share out better, short runs are interrupted less."""

_COPIED = 1 << 23
"""Numbers read and written for the bandwidth, 32 MiB each way: more than most caches hold."""

_SECONDS = 0.3
_FEWEST_RUNS = 20


@dataclass(frozen=True, slots=True)
class MachinePeak:
    """The highest rates seen.

    Attributes:
        float32_gmacs: Billions of multiply-accumulates a second in float32.
        int8_gmacs: The same with uint8 inputs and int8 weights.
        memory_gb_s: Billions of bytes read and written a second by one elementwise operator.
        threads: Intra-op threads.
    """

    float32_gmacs: float
    int8_gmacs: float
    memory_gb_s: float
    threads: int


def measure_peak(threads: int | str = "auto", *, seed: int = 0, progress: Progress = no_progress) -> MachinePeak:
    """Time two matrix products and one elementwise operator; the best run of each counts.

    Takes some three seconds. Other work on the machine lowers what is found, so the figures are what could be had here
    and now, not the processor's data sheet.
    """
    rng = np.random.default_rng(seed)
    float_s = int8_s = float("inf")  # for one billion products
    for done, side in enumerate(_SIDES):
        progress("peak", done, len(_SIDES) + 1)
        floats = rng.standard_normal((side, side)).astype(np.float32)
        codes = rng.integers(0, 256, (side, side)).astype(np.uint8)
        weights = rng.integers(-127, 128, (side, side)).astype(np.int8)
        products = side**3 / 1e9
        took, _ = _best_s(f"float[{side},{side}] x) => (float y) {{ y = MatMul(x, w)", floats, floats, threads)
        float_s = min(float_s, took / products)
        took, _ = _best_s(f"uint8[{side},{side}] x) => (int32 y) {{ y = MatMulInteger(x, w)", codes, weights, threads)
        int8_s = min(int8_s, took / products)
    progress("peak", len(_SIDES), len(_SIDES) + 1)
    moved = np.zeros(_COPIED, np.float32)
    memory_s, used = _best_s(f"float[{_COPIED}] x) => (float y) {{ y = Relu(x)", moved, None, threads)
    return MachinePeak(1 / float_s, 1 / int8_s, 2 * moved.nbytes / memory_s / 1e9, used)


def _best_s(body: str, fed: np.ndarray, weight: np.ndarray | None, threads: int | str) -> tuple[float, int]:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> peak ({body} }}')
    if weight is not None:
        proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    opened = open_session(ir.to_proto(ir.from_proto(proto)).SerializeToString(), threads=threads)
    return _fastest(lambda: opened.session.run(None, {"x": fed})), opened.threads


def _fastest(run: Callable[[], Any]) -> float:
    run()  # packs the weights
    best, spent, runs = float("inf"), 0.0, 0
    while spent < _SECONDS or runs < _FEWEST_RUNS:
        began = time.perf_counter_ns()
        run()
        took = (time.perf_counter_ns() - began) / 1e9
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best
