"""The picture of an explanation: the worst layers with their share of the error, and what float would gain and cost."""

import io
import warnings
from typing import TYPE_CHECKING

from edgecv.pipeline.explain import Explanation, LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 24
_LONGEST_NAME = 36
_WEIGHTS, _OUTPUT, _COST = "#0072b2", "#e69f00", "#009e73"  # Okabe and Ito's colours, told apart by everyone


def draw_explanation(explanation: Explanation, title: str) -> bytes:
    """Return a PNG of the worst layers; needs matplotlib (the extra ``plot``).

    Args:
        explanation: See :func:`edgecv.pipeline.explain.explain_draft`.
        title: Written above it as it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = explanation.worst[:SHOWN][::-1]
    figure = Figure(figsize=(11, 1.8 + 0.26 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    share, level, cost = figure.subplots(1, 3, sharey=True, width_ratios=[5, 3, 3])
    _draw_share(share, rows)
    _draw_level(level, rows)
    _draw_cost(cost, rows, explanation)
    whole = "exact" if explanation.sqnr_db is None else f"{explanation.sqnr_db:.1f} dB"
    heading = f"{title}: {whole} on {explanation.n} calibration images, worst {len(rows)} of {len(explanation.rows)}"
    figure.suptitle(_printable(heading), fontsize=11, parse_math=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # drawn as a box
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_share(axes: "Axes", rows: list[LayerRow]) -> None:
    places = list(range(len(rows)))
    weights = [100 * row.share_weights for row in rows]
    axes.barh(places, weights, color=_WEIGHTS, label="weights")
    axes.barh(places, [100 * r.share_output for r in rows], left=weights, color=_OUTPUT, label="output")
    axes.set_yticks(places, [shortened(row.layer) for row in rows], fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a name may hold dollars
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("share of the error, %")
    axes.legend(loc="lower right", fontsize=8)


def _draw_level(axes: "Axes", rows: list[LayerRow]) -> None:
    known = [(row.alone_db, place) for place, row in enumerate(rows) if row.alone_db is not None]
    axes.plot([db for db, _ in known], [place for _, place in known], "o", color="black", markersize=4)
    axes.set_xlabel("SQNR alone, dB")
    axes.grid(axis="x", alpha=0.4)


def _draw_cost(axes: "Axes", rows: list[LayerRow], explanation: Explanation) -> None:
    known = [(row.cost_ms, place) for place, row in enumerate(rows) if row.cost_ms is not None]
    axes.barh([place for _, place in known], [ms for ms, _ in known], color=_COST)
    axes.set_xlabel(f"cost in float, ms (all int8: {explanation.int8_ms:.2f})")
    axes.grid(axis="x", alpha=0.4)


def shortened(name: str) -> str:
    """Return a name with its middle left out when it is long; characters that cannot be drawn become question marks."""
    shown = _printable(name)
    half = _LONGEST_NAME // 2
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: half - 1]}…{shown[-half:]}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
