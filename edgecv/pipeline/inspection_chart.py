"""The picture of a network: where its multiply-accumulates, parameters and memory are, and what each layer sees."""

import io
import warnings
from typing import TYPE_CHECKING

from edgecv.pipeline.explain_chart import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgecv.graph.summary import Layer, Summary

_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart by everyone
_NAMED = 40
"""With more layers than this only some names fit on the axis."""


def draw_summary(summary: "Summary", title: str) -> bytes:
    """Return a PNG of a network layer by layer; needs matplotlib (the extra ``plot``).

    Args:
        summary: See :mod:`edgecv.graph.summary`.
        title: Written above it as it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = [x for x in summary.layers if x.macs or x.parameters]
    figure = Figure(figsize=(max(8.0, min(18.0, 0.16 * len(layers) + 4)), 10), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True)
    values = (
        ("MACs, millions", [x.macs / 1e6 for x in layers]),
        ("parameters, thousands", [x.parameters / 1e3 for x in layers]),
        ("memory held, MB", [x.held_bytes / 1e6 for x in layers]),
    )
    for axes, (label, heights), color in zip(panels, values, _COLORS, strict=False):
        axes.bar(range(len(layers)), heights, color=color, width=0.8)
        axes.set_ylabel(label)
        axes.grid(axis="y", alpha=0.4)
    _draw_fields(panels[3], layers)
    shown = range(0, len(layers), max(1, -(-len(layers) // _NAMED)))
    panels[3].set_xticks(list(shown), [shortened(layers[i].name) for i in shown], rotation=90, fontsize=7)
    for text in panels[3].get_xticklabels():
        text.set_parse_math(False)  # a name may hold dollars
    heading = (
        f"{title}: {summary.parameters / 1e6:.2f} M parameters, {summary.macs / 1e6:.1f} M MACs, "
        f"{summary.peak_activation_bytes / 1e6:.2f} MB at most between layers"
    )
    figure.suptitle("".join(c if c.isprintable() else "?" for c in heading), fontsize=11, parse_math=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # drawn as a box
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_fields(axes: "Axes", layers: "list[Layer]") -> None:
    local, whole = [], []
    for place, layer in enumerate(layers):
        field = layer.receptive_field
        if field is not None and field.size[0] is not None and field.size[1] is not None:
            local.append((place, max(field.size[0], field.size[1])))
        elif field is not None:
            whole.append(place)
    axes.step([p for p, _ in local], [size for _, size in local], where="mid", color=_COLORS[3], label="pixels seen")
    for number, place in enumerate(whole):
        axes.axvspan(place - 0.5, place + 0.5, color="#dddddd", label="" if number else "the whole image")
    axes.set_ylabel("receptive field, pixels")
    axes.grid(axis="y", alpha=0.4)
    if local or whole:
        axes.legend(loc="upper left", fontsize=8)
