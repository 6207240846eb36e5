"""An explanation as a page of HTML that needs nothing else, and the table's cells as text for any output."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from edgecv.files import write_bytes
from edgecv.pipeline.explain import Explanation, LayerRow
from edgecv.pipeline.explain_chart import draw_explanation
from edgecv.text import printable

COLUMNS = (
    "layer", "operator", "range", "clipped", "weights dB", "output dB", "alone dB", "share",
    "gain in float", "cost in ms",
)  # fmt: skip

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
table { border-collapse: collapse } th { text-align: left; border-bottom: 2px solid #999 }
th, td { padding: .2em .8em } td.number { text-align: right; font-variant-numeric: tabular-nums }
tr:nth-child(even) { background: #f4f4f4 } .bar { background: #0072b2; height: .8em } img { max-width: 100% }
"""

_MEANING = """
<p><b>range</b>: the numbers the output's codes reach; <b>clipped</b>: share of the output's values beyond them;
<b>weights</b>, <b>output</b>, <b>alone</b>: signal to noise of the network's outputs when only these weights, only this
output, or weights, input and output of this layer are quantized; <b>share</b>: of the sum of all single errors;
<b>gain in float</b>: share of the network's error that goes when this layer alone stays float; <b>cost</b>: how much
longer a run then takes, measured here.</p>
"""


def explanation_files(artifact: Path) -> tuple[Path, Path]:
    """Return where the page and the picture of a model's explanation go: beside it."""
    return artifact.with_name(f"{artifact.stem}.explain.html"), artifact.with_name(f"{artifact.stem}.explain.png")


def write_explanation(explanation: Explanation, artifact: Path) -> tuple[Path, Path]:
    """Write page and picture beside ``artifact`` and return their paths; needs the extra ``plot``.

    Raises:
        UsageError: They cannot be written.
    """
    page, picture = explanation_files(artifact)
    png = draw_explanation(explanation, artifact.name)
    write_bytes(picture, png)
    write_bytes(page, explanation_page(explanation, artifact.name, png).encode(errors="backslashreplace"))
    return page, picture


def explanation_page(explanation: Explanation, title: str, png: bytes) -> str:
    """Return the page; every name from the model is escaped and printable, the picture is inside."""
    body = explanation_section(explanation, title, png)
    heading = _escaped(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}</body></html>\n"
    )


def explanation_section(explanation: Explanation, title: str, png: bytes) -> str:
    """Return ``<section>`` … ``</section>``, to be put into any page."""
    widest = max((row.share for row in explanation.rows), default=0.0) or 1.0
    head = "".join(f"<th>{_escaped(column)}</th>" for column in (*COLUMNS, ""))
    lines = []
    for row in explanation.rows:
        name, operator, *numbers = cells(row)
        cell = "".join(f'<td class="number">{_escaped(text)}</td>' for text in numbers)
        bar = f'<td><div class="bar" style="width: {80 * row.share / widest:.1f}px"></div></td>'
        lines.append(f"<tr><td>{_escaped(name)}</td><td>{_escaped(operator)}</td>{cell}{bar}</tr>")
    picture = base64.b64encode(png).decode()
    return (
        f"<section><h1>{_escaped(title)}</h1>\n<p>{_escaped(summary(explanation))}</p>\n"
        f'<img alt="the worst layers" src="data:image/png;base64,{picture}">\n{_MEANING}'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table></section>\n"
    )


def summary(explanation: Explanation) -> str:
    """Return the explanation's own figures in one sentence."""
    whole, predicted = (
        "no error" if db is None else f"{db:.1f} dB" for db in (explanation.sqnr_db, explanation.predicted_db)
    )
    return (
        f"outputs at {whole} on {explanation.n} calibration images, single errors add up to {predicted}; "
        f"kernels take {explanation.int8_ms:.3f} ms a run in int8 (threads: {explanation.threads})"
    )


def cells(row: LayerRow) -> list[str]:
    """Return the texts of a row, one for each of :data:`COLUMNS`; empty where there is no figure."""
    span = "" if row.low is None or row.high is None else f"{row.low:.3g} .. {row.high:.3g}"
    return [
        row.layer,
        row.operator,
        span,
        _number(row.clipped, ".2%"),
        _number(row.weights_db, ".1f"),
        _number(row.output_db, ".1f"),
        _number(row.alone_db, ".1f"),
        _number(row.share, ".1%"),
        _number(row.gain, "+.1%"),
        _number(row.cost_ms, "+.3f"),
    ]


def worst_table(explanation: Explanation, most: int = 16) -> tuple[str, Sequence[str], list[list[str]]]:
    """Return (title, columns, rows) of the worst layers, narrow enough for a terminal."""
    shown = [i for i, column in enumerate(COLUMNS) if column not in ("operator", "weights dB", "output dB")]
    rows = [[cells(row)[i] for i in shown] for row in explanation.worst[:most]]
    title = f"worst {len(rows)} of {len(explanation.rows)} by their share of the error"
    return title, [COLUMNS[i] for i in shown], rows


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
