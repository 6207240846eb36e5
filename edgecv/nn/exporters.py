"""PyTorch to a raw ONNX graph: a ladder of exporters, tried until one gives a graph that passes its check."""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import nn

from edgecv.errors import EdgecvError, GateFailedError, UsageError

EXAMPLE_BATCH = 2
"""A batch of one would let the exporter take the batch dimension for a constant (pytorch/pytorch#133653)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rung: which exporter, and whether the batch dimension is dynamic."""

    exporter: str
    dynamic_batch: bool

    @property
    def name(self) -> str:
        """How reports call it."""
        return f"{self.exporter}, {'dynamic' if self.dynamic_batch else 'static'} batch"


LADDER = (
    Attempt("dynamo", True),
    Attempt("torchscript", True),
    Attempt("dynamo", False),
    Attempt("torchscript", False),
)


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """The graph that won, the rung it came from, and why each earlier rung did not."""

    model: ir.Model
    attempt: Attempt
    failures: tuple[tuple[str, str], ...]


def export_graph(
    module: nn.Module,
    input_size: tuple[int, int, int],
    *,
    opset: int,
    dynamic_size: bool,
    finish: Callable[[ir.Model, Attempt], ir.Model],
) -> ExportedGraph:
    """Climb down :data:`LADDER` until an exporter gives a graph that ``finish`` accepts.

    Args:
        module: In eval mode; takes float32 ``(N, *input_size)``.
        input_size: ``(channels, height, width)`` of the example.
        opset: ONNX opset to write.
        dynamic_size: Height and width are free too; static rungs are then left out.
        finish: Rewrites the raw graph, checks it against ``module`` and returns it; raises GateFailedError when the
            answers differ, which moves on to the next rung.

    Raises:
        GateFailedError: Every rung failed; the reasons are in the message.
    """
    failures: list[tuple[str, str]] = []
    for attempt in LADDER:
        if dynamic_size and not attempt.dynamic_batch:
            continue
        try:
            with _quiet():
                raw = _export(module, input_size, attempt, opset, dynamic_size)
            return ExportedGraph(finish(raw, attempt), attempt, tuple(failures))
        except UsageError:
            raise
        except Exception as e:  # exporters raise anything
            failures.append((attempt.name, reason(e)))
    summary = "; ".join(f"{name}: {why}" for name, why in failures)
    hint = "export it without --dynamic-size" if dynamic_size else "try --opset 20, or another version of torch"
    raise GateFailedError(f"no exporter gave a graph that answers like PyTorch ({summary}); {hint}.")


def reason(error: BaseException) -> str:
    """Return the first telling line of an exporter's error, at most 160 characters."""
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(error, EdgecvError):
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:160]}" if lines else type(cause).__name__


def _export(
    module: nn.Module, input_size: tuple[int, int, int], attempt: Attempt, opset: int, dynamic_size: bool
) -> ir.Model:
    batch = EXAMPLE_BATCH if attempt.dynamic_batch else 1
    example = torch.zeros((batch, *input_size)).uniform_(generator=torch.Generator().manual_seed(0))
    if attempt.exporter == "dynamo":
        return _dynamo(module, example, attempt, opset, dynamic_size)
    return _torchscript(module, example, attempt, opset, dynamic_size)


def _dynamo(module: nn.Module, example: torch.Tensor, attempt: Attempt, opset: int, dynamic_size: bool) -> ir.Model:
    axes: dict[int, object] = {}
    if attempt.dynamic_batch:
        axes[0] = torch.export.Dim("batch", min=1)
    if dynamic_size:
        axes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        dynamic_shapes=(axes,) if axes else None,
        opset_version=opset,
        verbose=False,
    )
    if program is None:
        raise GateFailedError("the exporter returned nothing")
    model = program.model
    if model.opset_imports.get("") != opset:
        raise GateFailedError(f"the exporter wrote opset {model.opset_imports.get('')} instead of {opset}")
    return model


def _torchscript(
    module: nn.Module, example: torch.Tensor, attempt: Attempt, opset: int, dynamic_size: bool
) -> ir.Model:
    axes = {0: "batch"} if attempt.dynamic_batch else {}
    sizes = {2: "height", 3: "width"} if dynamic_size else {}
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": axes | sizes, "logits": axes} if axes or sizes else None,
        )
        return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' own chatter: their progress prints and warnings are not about the user's work."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
