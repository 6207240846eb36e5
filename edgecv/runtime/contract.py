"""What a model's manifest promises, held against its graph."""

from edgecv.errors import UsageError
from edgecv.manifest import KEY, Manifest
from edgecv.runtime.session import Session

_DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


def require_manifest(session: Session) -> Manifest:
    """Return the manifest inside an open model.

    Raises:
        UsageError: There is none; the message says how to adopt a foreign model.
    """
    if session.manifest is None:
        raise UsageError(
            f"'{session.name}' has no edgecv manifest (metadata key '{KEY}'), so its preprocessing is not known; "
            f"adopt it first: edgecv export {session.name} --mean M --std S --labels FILE"
        )
    return session.manifest


def check_graph(session: Session, manifest: Manifest) -> tuple[str, int]:
    """Check that the graph takes and gives what the manifest says; return its output and fixed batch (0: any)."""
    name, spec = session.name, manifest.input
    inputs, outputs = session.session.get_inputs(), session.session.get_outputs()
    taken = [f"{i.name}: {i.type} {i.shape}" for i in inputs]
    size = ("height", "width") if spec.dynamic_size else spec.input_size[1:]
    expected = ["batch", *size, 3] if spec.layout == "NHWC" else ["batch", 3, *size]
    if (
        [(i.name, i.type) for i in inputs] != [(spec.name, _DTYPES[spec.dtype])]
        or len(inputs[0].shape) != 4
        or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(inputs[0].shape, expected, strict=True)
        )
    ):
        raise UsageError(
            f"model '{name}' takes {taken} and its manifest says {spec.name}: {spec.dtype} {expected}; export it again."
        )
    output = next((o for o in outputs if o.name == manifest.output.name), None)
    if output is None:
        raise UsageError(
            f"model '{name}' has no output '{manifest.output.name}' as its manifest says; export it again."
        )
    if manifest.task != "classify" or len(output.shape) != 2 or not output.type.startswith("tensor(float"):
        raise UsageError(
            f"model '{name}' is not a classifier: its output is {output.type} {output.shape}, not float (N, classes)."
        )
    if output.shape[1] == 0:
        raise UsageError(f"model '{name}' is not a classifier: it has no classes.")
    labels = len(manifest.output.labels)
    if labels and isinstance(output.shape[1], int) and output.shape[1] != labels:
        raise UsageError(
            f"model '{name}' has {output.shape[1]} classes, its manifest {labels} labels; export it again."
        )
    batch = inputs[0].shape[0]
    return output.name, batch if isinstance(batch, int) else spec.batch
