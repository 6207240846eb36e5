"""Tables and sentences of ``edgecv inspect``."""

from collections import Counter
from typing import TYPE_CHECKING

from edgecv.text import megabytes

if TYPE_CHECKING:
    from edgecv.graph.receptive_field import ReceptiveField
    from edgecv.graph.summary import Layer
    from edgecv.pipeline.inspection import Inspection
    from edgecv.pipeline.roofline import Roofline

Table = tuple[str, list[str], list[list[str]]]

_SHOWN = 12


def operator_table(found: "Inspection") -> Table:
    """Operators with their share of the cost and the provider that runs them."""
    macs: Counter[str] = Counter()
    learned: Counter[str] = Counter()
    for layer in found.summary.layers:
        macs[layer.operator] += layer.macs
        learned[layer.operator] += layer.parameters
    rows = [
        [name, str(count), _count(learned[name]), _millions(macs[name]), _providers(found, name)]
        for name, count in list(found.operators.items())[:_SHOWN]
    ]
    if rest := list(found.operators.items())[_SHOWN:]:
        names = [name for name, _ in rest]
        rows.append(
            [
                f"{len(rest)} others",
                str(sum(count for _, count in rest)),
                _count(sum(learned[n] for n in names)),
                _millions(sum(macs[n] for n in names)),
                "",
            ]
        )
    return ("", ["operator", "count", "parameters", "MACs (M)", "provider"], rows)


def weight_table(found: "Inspection") -> Table:
    """Stored arrays by type."""
    rows = [
        [name, str(row["arrays"]), f"{row['elements']:,}", megabytes(row["bytes"])]
        for name, row in found.weights.items()
    ]
    return ("", ["weights", "arrays", "elements", "size"], rows)


def layer_table(found: "Inspection", *, every: bool) -> Table:
    """Layers with parameters or MACs: all in the order of the graph, or the costliest."""
    costly = [x for x in found.summary.layers if x.macs or x.parameters]
    shown = costly if every else sorted(costly, key=lambda x: (-x.macs, -x.parameters))[:_SHOWN]
    title = "" if every or len(costly) <= _SHOWN else f"the {_SHOWN} costliest of {len(costly)} layers (all: --layers)"
    columns = ["layer", "operator", "output", "parameters", "from", "MACs (M)", "writes", "sees/stride"]
    return (title, columns, [_layer_row(layer) for layer in shown])


def roofline_table(roofline: "Roofline") -> Table:
    """The nodes with most to win."""
    rows = [
        [
            row.layer or row.name,
            row.operator,
            row.arithmetic if row.macs else "",
            f"{row.latency_ms:.3f}",
            _millions(row.macs),
            megabytes(row.moved_bytes),
            row.bound_by,
            f"{100 * row.reached:.0f} %",
            f"{row.gain_ms:.3f}",
        ]
        for row in roofline.rows[:_SHOWN]
    ]
    columns = ["layer", "runs as", "in", "ms", "MACs (M)", "moved", "bound by", "reached", "to win, ms"]
    return ("what to attack first", columns, rows)


def roofline_notes(roofline: "Roofline") -> list[str]:
    """The peaks and the total."""
    peak = roofline.peak
    return [
        f"measured peak, {peak.threads} thread(s): float32 {peak.float32_gmacs:.1f} and int8 {peak.int8_gmacs:.1f} "
        f"billion MACs a second, memory {peak.memory_gb_s:.1f} GB/s (over 100 %: caches give more than memory)",
        f"{roofline.kernel_ms:.2f} ms in {len(roofline.rows)} nodes, {roofline.bound_ms:.2f} ms at the roof; layers "
        f"found for {100 * roofline.matched:.1f} % of the MACs; medians of {roofline.runs} profiled runs",
    ]


def cost_notes(found: "Inspection") -> list[str]:
    """Totals, what cannot be counted, and where the file does not run."""
    s = found.summary
    bound = "" if s.complete and not s.uncounted else " (lower bounds: not every shape or cost can be told)"
    lines = [
        f"{s.parameters:,} parameters; batch {s.batch}: {s.macs / 1e6:,.1f} M MACs, {megabytes(s.activation_bytes)} "
        f"written by all layers, {megabytes(s.peak_activation_bytes)} held at most (at {s.peak_layer}){bound}"
    ]
    if s.field is not None:
        lines.append(f"the widest view short of the whole image: {_sees(s.field)} pixels at {s.field_layer}")
    if s.uncounted:
        lines.append(f"not counted: {', '.join(s.uncounted[:5])}{' …' if len(s.uncounted) > 5 else ''}")
    for obstacle in found.obstacles:
        where = f" ({', '.join(obstacle.devices)})" if obstacle.devices else ""
        lines.append(f"not portable: {obstacle.what}: {obstacle.why}{where}")
    return lines


def _layer_row(layer: "Layer") -> list[str]:
    field = layer.receptive_field
    sees = "" if field is None else _sees(field)
    if field is not None and field.stride[0] is not None:
        sees += f"/{_pair(field.stride)}"
    return [
        layer.name,
        layer.operator,
        "?" if layer.output_shape is None else "×".join(map(str, layer.output_shape)),
        _count(layer.parameters),
        layer.formula,
        _millions(layer.macs),
        megabytes(layer.activation_bytes),
        sees,
    ]


def _sees(field: "ReceptiveField") -> str:
    return "all" if None in field.size else _pair(field.size)


def _pair(values: tuple[float | None, float | None]) -> str:
    first, second = ("?" if v is None else f"{v:g}" for v in values)
    return first if first == second else f"{first}×{second}"


def _providers(found: "Inspection", name: str) -> str:
    placed = found.placed.get(name, {})
    return next(iter(placed)) if len(placed) == 1 else ", ".join(f"{p} {n}" for p, n in placed.items())


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.2f}" if macs else ""
