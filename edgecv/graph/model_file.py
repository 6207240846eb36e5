"""Reading and writing ``.onnx`` files: checked before parsing, canonical bytes, never half written."""

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.files import write_atomically
from edgecv.manifest import KEY, Manifest, from_metadata, to_metadata
from edgecv.runtime.model_bytes import read_model
from edgecv.runtime.session import Session, open_session

MAX_SINGLE_FILE_BYTES = 1_800_000_000
"""Above this the weights go to ``<stem>.onnx.data``: protobuf refuses messages of 2 GiB."""


def load_model(path: Path) -> ir.Model:
    """Read an ONNX file with its weights in memory.

    Raises:
        UsageError: Not a regular file, not ONNX, truncated, against the policy, or with external data outside its own
            folder.
    """
    source, _ = read_model(path)
    try:
        proto = onnx.load_model_from_string(source.data)
        onnx.checker.check_model(proto if proto.ByteSize() < MAX_SINGLE_FILE_BYTES else str(path))
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.resolve().parent)
        model = ir.external_data.load_to_model(model)
    except UsageError:
        raise
    except Exception as e:  # protobuf, onnx_ir and numpy each have their own way to choke on bad bytes
        raise UsageError(
            f"model '{path}' is not a readable ONNX file ({_first_line(e)}); export it again or fetch it again."
        ) from e
    if not len(model.graph) or not model.graph.outputs:
        raise UsageError(f"model '{path}' holds no ONNX graph; export it again or fetch it again.")
    return model


def save_model(model: ir.Model, path: Path, manifest: Manifest | None = None) -> None:
    """Write ``model`` to ``path`` (temporary file, fsync, rename), with ``manifest`` inside it when given.

    The same model and manifest give the same bytes.
    """
    if manifest is not None:
        for key, value in to_metadata(manifest).items():
            model.metadata_props[key] = value
    ordered = dict(sorted(model.metadata_props.items()))
    model.metadata_props.clear()
    model.metadata_props.update(ordered)
    if weight_bytes(model) <= MAX_SINGLE_FILE_BYTES:
        write_atomically(path, lambda temporary: ir.save(model, temporary, format="protobuf"))
        return
    data_name = f"{path.name}.data"
    write_atomically(path, lambda temporary: ir.save(model, temporary, format="protobuf", external_data=data_name))


def read_manifest(model: ir.Model, path: Path) -> Manifest | None:
    """Return the manifest inside ``model``, or None for a foreign one; see :func:`edgecv.manifest.from_metadata`."""
    return from_metadata(model.metadata_props, str(path))


def require_manifest(model: ir.Model, path: Path) -> Manifest:
    """Return the manifest inside ``model``.

    Raises:
        UsageError: There is none (the message says how to adopt a foreign model), or it names other classes than the
            graph gives.
    """
    manifest = read_manifest(model, path)
    if manifest is None:
        raise UsageError(
            f"'{path}' has no edgecv manifest (metadata key '{KEY}'), so its preprocessing is not known; "
            f"adopt it first: edgecv export {path} --mean M --std S --labels FILE"
        )
    shape = model.graph.outputs[0].shape
    classes = shape[-1] if shape is not None and len(shape) else None
    if classes == 0 or (isinstance(classes, int) and manifest.output.labels and classes != len(manifest.output.labels)):
        raise UsageError(
            f"'{path}' gives {classes} classes and its manifest names {len(manifest.output.labels)}; export it again."
        )
    return manifest


def weight_bytes(model: ir.Model) -> int:
    """Return the size of all initializers in bytes."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def open_model(model: ir.Model, *, provider: str = "cpu", threads: int | str = "auto") -> Session:
    """Open a session on a model in memory; one too large for a protobuf message goes through a temporary folder."""
    if weight_bytes(model) <= MAX_SINGLE_FILE_BYTES:
        return open_session(
            ir.to_proto(model).SerializeToString(), provider=provider, threads=threads, policy="relaxed"
        )
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        return open_session(path, provider=provider, threads=threads, policy="relaxed")
