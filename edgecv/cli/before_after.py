"""The table of what a cut did to a network, for ``edgecv prune`` and ``edgecv factorize``."""

from collections.abc import Mapping
from typing import Any

COLUMNS = ["", "before", "after", "ratio"]


def before_after_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return MACs, parameters, file sizes, measured time and held-out top-1, each before, after and their ratio."""
    before, after = report["before"], report["after"]
    rows = [
        ["million MACs", *(f"{v['macs'] / 1e6:.2f}" for v in (before, after)), f"{after['macs'] / before['macs']:.3f}"],
        ["parameters", *(f"{v['params']:,}" for v in (before, after)), f"{after['params'] / before['params']:.3f}"],
        megabytes_row("checkpoint, MB", before["file_bytes"], after["file_bytes"]),
    ]
    if onnx := report["onnx_bytes"]:
        rows.append(megabytes_row("ONNX, MB", onnx["before"], onnx["after"]))
    if latency := report["latency"]:
        times = [f"{latency[key]:.3f}" for key in ("before_p50_ms", "after_p50_ms")]
        ratio = latency["ratio"]
        rows.append(["measured time, ms", *times, f"{ratio['estimate']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"])
    if before["top1"] is not None:
        rows.append(["held-out top-1", f"{before['top1']:.2%}", f"{after['top1']:.2%}", ""])
    return rows


def megabytes_row(title: str, before: int, after: int) -> list[str]:
    """Return a row of two sizes in bytes, shown in MB."""
    return [title, f"{before / 1e6:.3f}", f"{after / 1e6:.3f}", f"{after / before:.3f}"]
