"""A layer against its replacements on the clock: the ONNX of that layer alone, all in interleaved rounds."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecv.benchmark.latency import compare_latency
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.statistics import Interval
from edgecv.nn.factorize.geometry import Geometry, Pair
from edgecv.nn.factorize.methods import METHODS
from edgecv.nn.factorize.plan import Candidate, Factorizable, Option
from edgecv.progress import Progress, no_progress

LAYER = Preset("layer", min_queries=64, min_seconds=0.4, max_seconds=3.0, turn_ms=20.0, max_warm_up_seconds=0.5)
"""A layer takes micro- to milliseconds; twenty interleaved turns of 20 ms show a difference of a few per cent."""

_WORTH_A_TRY = 0.9
"""Share of the MACs of the rounded rank below which a rank that fills no registers might be faster after all."""

_OPSET, _IR_VERSION = 18, 8


@dataclass(frozen=True, slots=True)
class Timed:
    """One replacement on the clock.

    Attributes:
        name: Of the layer.
        option: The replacement.
        speedup: Times faster than the layer, with interval; None with too few rounds.
        kept: Whether it is the fastest for this layer and certainly faster than it.
    """

    name: str
    option: Option
    speedup: Interval | None
    kept: bool


def choose_by_time(
    factorizable: Factorizable,
    energy: float,
    *,
    rank: int = 0,
    provider: str = "cpu",
    threads: str = "auto",
    progress: Progress = no_progress,
) -> tuple[dict[str, Option], list[Timed]]:
    """Return for each layer the replacement measured to be fastest, where one is faster; and all that was measured.

    Layers of the same shapes with the same options are measured once.

    Args:
        factorizable: Analysed.
        energy: Share of a kernel that every option keeps.
        rank: Instead of it, when not 0.
        provider: Policy of :mod:`edgecv.runtime.providers`.
        threads: Intra-op threads: a number, or ``auto``.
        progress: Told after each layer.
    """
    choice: dict[str, Option] = {}
    timed: list[Timed] = []
    known: dict[tuple[object, ...], list[Interval | None]] = {}
    for done, candidate in enumerate(factorizable.candidates):
        progress("time layers", done, len(factorizable.candidates))
        options = _variants(factorizable, candidate, energy, rank)
        if not options:
            continue
        key = (candidate.found.geometry, candidate.found.size, *options)
        if key not in known:
            known[key] = _speedups(candidate, options, provider, threads, factorizable.seed)
        best = _best(known[key])
        if best is not None:
            choice[candidate.found.name] = options[best]
        timed += [
            Timed(candidate.found.name, o, s, i == best)
            for i, (o, s) in enumerate(zip(options, known[key], strict=True))
        ]
    progress("time layers", len(factorizable.candidates), len(factorizable.candidates))
    return choice, timed


def _best(speedups: Sequence[Interval | None]) -> int | None:
    """Return the fastest of those whose interval lies wholly above 1."""
    faster = [i for i, s in enumerate(speedups) if s is not None and s.low > 1]
    return max(faster, key=lambda i: speedups[i].estimate, default=None)  # type: ignore[union-attr]


def _variants(factorizable: Factorizable, candidate: Candidate, energy: float, rank: int) -> list[Option]:
    """Return the options with ranks rounded to vector registers, and the ranks as needed where that is much less."""
    rounded = factorizable.options(candidate, energy, rank)
    macs = {o.method: o.macs for o in rounded}
    exact = replace(factorizable, multiple=1).options(candidate, energy, rank)
    return [*rounded, *(o for o in exact if o.macs < _WORTH_A_TRY * macs[o.method])]


def _speedups(
    candidate: Candidate, options: Sequence[Option], provider: str, threads: str, seed: int
) -> list[Interval | None]:
    geometry, size = candidate.found.geometry, candidate.found.size
    chains = [(geometry,), *(tuple(METHODS[o.method].pieces(geometry, o.rank)) for o in options)]
    with tempfile.TemporaryDirectory(prefix="edgecv-layer-") as folder:
        paths = [save_chain(chain, size, Path(folder) / f"{i}.onnx", seed) for i, chain in enumerate(chains)]
        report = compare_latency(paths, provider=provider, threads=threads, preset=LAYER, seed=seed)
    return [result.speedup for result in report.results[1:]]


def save_chain(pieces: Sequence[Geometry], size: Pair, path: Path, seed: int = 0) -> Path:
    """Write layers one after the other as an ONNX model with random weights.

    Args:
        pieces: In their order; all linear, or all convolutions.
        size: Of the first one's input: height and width, or (vectors, 1).
        path: The file.
        seed: Of the weights, which time does not depend on.
    """
    rng = np.random.default_rng(seed)
    nodes, weights = [], []
    for i, piece in enumerate(pieces):
        node, arrays = _node(piece, f"x{i}", f"x{i + 1}", rng)
        nodes.append(node)
        weights += arrays
    first, last = pieces[0], pieces[-1]
    end = size
    for piece in pieces:
        end = piece.output_size(end)
    shapes = (
        ([size[0], first.channels_in], [size[0], last.channels_out])
        if first.linear
        else ([1, first.channels_in, *size], [1, last.channels_out, *end])
    )
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("x0", f"x{len(pieces)}"), shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "layer", infos[:1], infos[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.save(model, path)
    return path


def _node(
    piece: Geometry, source: str, result: str, rng: np.random.Generator
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    shape = (piece.channels_out, piece.channels_in // piece.groups, *piece.kernel)
    arrays = {f"{result}.weight": shape[:2] if piece.linear else shape, f"{result}.bias": shape[:1]}
    named = {n: s for n, s in arrays.items() if piece.bias or n.endswith(".weight")}
    values = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in named.items()]
    inputs = [source, *named]
    if piece.linear:
        return helper.make_node("Gemm", inputs, [result], transB=1), values
    node = helper.make_node(
        "Conv", inputs, [result], kernel_shape=piece.kernel, strides=piece.stride, dilations=piece.dilation,
        group=piece.groups, pads=[*piece.padding, *piece.padding],
    )  # fmt: skip
    return node, values
