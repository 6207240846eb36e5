import html.parser
import json
from pathlib import Path

import numpy as np
import pytest
from small_graphs import MANIFEST, images, residual_model

from edgecv.pipeline.explain import Explanation, LayerRow, explain_draft
from edgecv.pipeline.explain_chart import draw_explanation, shortened
from edgecv.pipeline.explain_page import COLUMNS, cells, explanation_page, worst_table, write_explanation
from edgecv.pipeline.mixed_precision import Machine
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.text import UNSAFE, printable

DATA = images(16)
OTHERS = ("Add_5", "GlobalAveragePool_7", "Gemm_9")
HOSTILE = "<script>alert('$x^2$')</script>\x1b[31m&\u202e"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    """Conv_4 has weights that its scale leaves no codes for; the range of Conv_2's output cuts most of its values."""
    weight = np.float32(np.random.default_rng(0).standard_normal((8, 8, 1, 1)) * 0.1)
    weight[:, 0] = 50
    bias = np.zeros(8, np.float32)
    bias[0] = -100
    basis = prepare_basis(residual_model(w3=weight, b2=bias), MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    spans = {**basis.pixels, **ranges_of(seen, "mse"), "r": Range(0.0, 0.8)}
    draft = draft_network(basis.model, basis.placement, spans, seen)
    return explain_draft(draft, basis.model, DATA, basis.rewrites, machine=Machine(threads="1"))


def rows_with(name: str) -> Explanation:
    row = LayerRow(name, "Conv", (8, 3, 3, 3), -1.0, 1.0, 0.01, 30.0, 31.0, 29.0, 0.6, 0.4, 0.5, 0.02)
    return Explanation(
        (row, LayerRow("image", "input", None, 0, 6, 0, None, None, None, 0, 0)), 25.0, 24.0, 2.5, 16, "1"
    )


def test_every_int8_node_has_a_row_in_the_order_of_the_graph(explanation: Explanation) -> None:
    assert [row.layer for row in explanation.rows] == ["image", "Conv_0", "Conv_2", "Conv_4", *OTHERS]


def test_the_bad_layers_lead_with_what_is_bad_about_them(explanation: Explanation) -> None:
    first, second = explanation.worst[:2]
    assert {first.layer, second.layer} == {"Conv_2", "Conv_4"}
    weights, output = sorted((first, second), key=lambda row: row.layer, reverse=True)
    assert weights.share_weights > 10 * weights.share_output
    assert output.share_output > 10 * output.share_weights
    assert output.clipped is not None
    assert output.clipped > 0.03
    assert output.high == pytest.approx(0.8)
    assert sum(row.share for row in explanation.rows) == pytest.approx(1.0)


def test_what_float_would_gain_and_cost_is_measured(explanation: Explanation) -> None:
    rows = {row.layer: row for row in explanation.rows}
    gain = rows["Conv_4"].gain
    assert gain is not None
    assert gain > 0.05
    assert all(row.cost_ms is not None for row in explanation.rows if row.weight_shape)
    assert explanation.int8_ms > 0


def test_it_is_json_without_numbers_that_json_does_not_know(explanation: Explanation) -> None:
    data = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert data["n"] == 16
    assert data["rows"][3]["share"] == explanation.rows[3].share
    again = Explanation.from_dict(data | {"files": ["m.explain.html"]})
    assert json.dumps(again.to_dict()) == json.dumps(explanation.to_dict())


def test_no_name_from_the_model_becomes_markup() -> None:
    page = explanation_page(rows_with(HOSTILE), HOSTILE, b"png")
    assert "<script" not in page
    found: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(page)
    assert printable(HOSTILE) in found
    assert not UNSAFE.search(page.replace("\n", ""))


def test_the_page_needs_nothing_but_itself() -> None:
    page = explanation_page(rows_with("stem"), "m.onnx", b"png")
    assert "http" not in page
    assert page.count("src=") == page.count('src="data:image/png;base64,cG5n"') == 1


def test_the_picture_shows_the_figures_and_any_name() -> None:
    picture = draw_explanation(rows_with(HOSTILE), HOSTILE)
    assert picture.startswith(b"\x89PNG")
    assert picture == draw_explanation(rows_with(HOSTILE), HOSTILE)
    assert picture != draw_explanation(rows_with("stem"), HOSTILE)


def test_a_long_name_keeps_both_ends() -> None:
    shown = shortened("features.0." + "x" * 100 + ".conv")
    assert shown.startswith("features.0.")
    assert shown.endswith("x.conv")
    assert len(shortened("x" * 100)) <= 36
    assert shortened("short") == "short"


def test_page_and_picture_go_beside_the_model(tmp_path: Path) -> None:
    page, picture = write_explanation(rows_with("stem"), tmp_path / "m.int8.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.int8.explain.html", "m.int8.explain.png"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "<td>stem</td>" in page.read_text()


def test_the_table_for_a_terminal_is_narrow() -> None:
    title, columns, rows = worst_table(rows_with("stem"))
    assert title.startswith("worst 2 of 2")
    assert rows[0] == ["stem", "-1 .. 1", "1.00%", "29.0", "100.0%", "+50.0%", "+0.020"]
    assert len(columns) == len(rows[0]) < len(COLUMNS) == len(cells(rows_with("stem").rows[0]))
