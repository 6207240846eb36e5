"""Opset and IR version: as old as the graph allows, never newer than the target's ONNX Runtime reads."""

import onnx
import onnx_ir as ir

from edgecv.errors import UsageError

DEFAULT_OPSET = 18
MIN_QUANTIZE_OPSET = 13  # DequantizeLinear has an axis since 13: per-channel weights (ONNX operator changelog)

_ORT_READS: tuple[tuple[tuple[int, int], int, int], ...] = (
    # (ONNX Runtime, highest opset, highest IR): onnxruntime.ai/docs/reference/compatibility.html and docs/Versioning.md
    ((1, 14), 18, 8),
    ((1, 15), 19, 8),
    ((1, 16), 19, 9),
    ((1, 17), 20, 9),
    ((1, 18), 21, 10),
    ((1, 20), 21, 10),
    ((1, 21), 22, 10),
    ((1, 23), 23, 11),
)


def limits_of(ort_version: str) -> tuple[int, int]:
    """Return ``(highest opset, highest IR version)`` an ONNX Runtime reads.

    >>> limits_of("1.17.3")
    (20, 9)

    Raises:
        UsageError: The version is not of the form ``1.17`` or older than the oldest known (1.14).
    """
    try:
        major, minor = (int(x) for x in ort_version.split(".")[:2])
    except ValueError:
        raise UsageError(f"ONNX Runtime version '{ort_version}' is not of the form 1.17.") from None
    known = [(opset, ir_version) for version, opset, ir_version in _ORT_READS if version <= (major, minor)]
    if not known:
        raise UsageError(f"ONNX Runtime {ort_version} is older than 1.14, the oldest edgecv exports for.")
    return known[-1]


def default_opset(model: ir.Model) -> int:
    """Return the opset of the default domain.

    Raises:
        UsageError: The model declares none.
    """
    version = model.opset_imports.get("")
    if version is None:
        raise UsageError("the model declares no ONNX opset; export it again.")
    return version


def upgrade_opset(model: ir.Model, minimum: int) -> ir.Model:
    """Return ``model`` at opset ``minimum`` or above, converted by ONNX's own version converter when it is older.

    Raises:
        UsageError: The converter cannot convert one of its operators.
    """
    if default_opset(model) >= minimum:
        return model
    try:
        converted = onnx.version_converter.convert_version(ir.to_proto(model), minimum)
    except Exception as e:  # the converter raises RuntimeError, ValidationError and its own types
        raise UsageError(
            f"opset {default_opset(model)} cannot be converted to {minimum} ({str(e).splitlines()[0][:120]}); "
            f"export the model again with opset {minimum} or newer."
        ) from e
    upgraded = ir.from_proto(converted)
    upgraded.metadata_props.update(model.metadata_props)
    return upgraded


def set_lowest_ir_version(model: ir.Model, *, limit: int | None = None) -> None:
    """Set the lowest IR version the model's opsets allow, so that the oldest possible runtime reads the file.

    Raises:
        UsageError: The opset needs a newer IR than ``limit``.
    """
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items() if d in ("", "ai.onnx.ml")]
    # 4 is the first IR whose initializers need not be inputs (onnx/docs/IR.md)
    needed = max(4, onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))
    if limit is not None and needed > limit:
        raise UsageError(f"opset {default_opset(model)} needs IR version {needed}, the target reads up to {limit}.")
    model.ir_version = needed
