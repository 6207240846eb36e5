"""Where a graph will not run: operators of one runtime alone, limits of the devices edgecv knows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edgecv.config.device import DeviceProfile
from edgecv.graph.opset import limits_of

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_CONTRIBUTED = "com.microsoft"
_CONTROL = ("If", "Loop", "Scan")
_LENGTH_BY_CONTENT = ("NonZero", "NonMaxSuppression", "Unique", "Compress")
_FIXED_SHAPES = ("trt", "trt-rtx", "qnn", "coreml", "xnnpack")
"""Providers that take fixed shapes only, or build anew for every other one (onnxruntime.ai, execution providers)."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason why a graph does not run somewhere.

    Attributes:
        what: The operator or property, and how often it occurs.
        why: In words.
        devices: Names of the profiles it concerns; empty when it concerns whatever is not ONNX Runtime.
    """

    what: str
    why: str
    devices: tuple[str, ...] = ()


def find_obstacles(model: ir.Model, devices: Iterable[DeviceProfile]) -> tuple[Obstacle, ...]:
    """Return what keeps a graph from running on other runtimes and on the given devices."""
    devices = tuple(devices)
    nodes = list(model.graph.all_nodes())
    found = [*_versions(model, devices)]
    foreign = Counter((n.domain, n.op_type) for n in nodes if n.domain not in _STANDARD)
    for (domain, name), count in foreign.most_common():
        own = domain == _CONTRIBUTED
        why = "an operator of ONNX Runtime alone" if own else f"an operator of the domain '{domain}', not of ONNX"
        found.append(Obstacle(f"{count} {domain}::{name}", why))
    fixed = tuple(d.name for d in devices if set(d.providers) & set(_FIXED_SHAPES))
    for kinds, why in (
        (_CONTROL, "control flow, which providers that compile a graph leave to the CPU"),
        (_LENGTH_BY_CONTENT, "the length of its result depends on the numbers in it, which compiled graphs exclude"),
    ):
        for name, count in Counter(n.op_type for n in nodes if n.op_type in kinds).items():
            found.append(Obstacle(f"{count} {name}", why, fixed))
    return (*found, *_free_dimensions(model, fixed))


def _versions(model: ir.Model, devices: tuple[DeviceProfile, ...]) -> list[Obstacle]:
    found = []
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    for what, value, place in (("opset", opset, 0), ("IR version", model.ir_version, 1)):
        short = [d for d in devices if limits_of(d.onnxruntime)[place] < value]
        if short:
            highest = ", ".join(f"{d.name} {limits_of(d.onnxruntime)[place]}" for d in short)
            found.append(Obstacle(f"{what} {value}", f"newer than they read: {highest}", tuple(d.name for d in short)))
    return found


def _free_dimensions(model: ir.Model, devices: tuple[str, ...]) -> list[Obstacle]:
    free = [
        f"{value.name} axis {axis}"
        for value in model.graph.inputs
        if value.shape is not None
        for axis, size in enumerate(value.shape)
        if axis and not isinstance(size, int)
    ]
    why = "an image of free size: nothing can be counted or compiled ahead"
    return [Obstacle(f"free dimensions: {', '.join(free)}", why, devices)] if free else []
