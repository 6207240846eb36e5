"""A model without a manifest judged beside one that has it: another tool's int8 file of the same network, usually."""

from dataclasses import replace
from typing import Any

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec, Manifest
from edgecv.runtime.session import Session

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def borrow_manifest(session: Session, lender: Manifest, lender_name: str) -> Manifest:
    """Return a manifest for a model that has none: the preprocessing and classes of ``lender``.

    The graph may take uint8 (N, H, W, 3) or normalised float32, in either layout: images are prepared as the lender's
    are, and normalised with its mean and std where the graph takes floats. What the file was calibrated on is not
    known, so no image can be held against it.

    Args:
        session: The open model.
        lender: Manifest of the model it is compared with.
        lender_name: That model's file, for messages.

    Raises:
        UsageError: The graph's input is not an image of the lender's size, or its first output is not one row of
            scores of the lender's classes.
    """
    inputs, output = session.session.get_inputs(), session.session.get_outputs()[0]
    spec = _input_like(inputs[0], lender.input) if len(inputs) == 1 else None
    if spec is None:
        taken = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
        raise UsageError(
            f"'{session.name}' has no edgecv manifest and takes {taken}, which images prepared for '{lender_name}' do "
            f"not fit; adopt it first: edgecv export {session.name} --mean M --std S --labels FILE"
        )
    classes = len(lender.output.labels)
    if len(output.shape) != 2 or (classes and isinstance(output.shape[1], int) and output.shape[1] != classes):
        raise UsageError(
            f"'{session.name}' has no edgecv manifest and answers with {output.name}: {output.shape}, not with one row "
            f"of scores as '{lender_name}' does; only models of the same classes can be compared."
        )
    return replace(
        lender,
        input=spec,
        output=replace(lender.output, name=output.name),
        source={},
        made_from={},
        stages=(),
        calibration=(),
        parity=(),
    )


def borrowed_note(name: str, lender_name: str) -> str:
    """Return what a reader should know of a borrowed manifest."""
    return (
        f"{name} has no edgecv manifest: it gets the preprocessing and classes of {lender_name}, and images it was "
        "calibrated on cannot be told"
    )


def _input_like(node: Any, spec: InputSpec) -> InputSpec | None:
    """Return ``spec`` for the graph input ``node``, or None when images of ``spec`` do not fit it."""
    dtype = _DTYPES.get(node.type)
    if dtype is None or len(node.shape) != 4:
        return None
    dims = [d if isinstance(d, int) and d > 0 else None for d in node.shape]
    _, height, width = spec.input_size
    if dims[1] == 3 and dims[3] != 3:
        layout, size = "NCHW", dims[2:]
    elif dims[3] == 3:
        layout, size = "NHWC", dims[1:3]
    else:
        return None
    if any(d not in (None, side) for d, side in zip(size, (height, width), strict=True)):
        return None
    return replace(spec, name=node.name, layout=layout, dtype=dtype, dynamic_size=None in size, batch=dims[0] or 0)
