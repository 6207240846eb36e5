"""The manifest that travels inside a model's ``metadata_props``: what the network takes, gives, and went through.

The file format is JSON under the key ``edgecv`` plus flat keys that other tools read. See ARCHITECTURE.md.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgecv.errors import UsageError
from edgecv.typed import build

SCHEMA = 1
KEY = "edgecv"
MAX_MANIFEST_BYTES = 8 << 20
"""100,000 images of calibration; parsed, hostile JSON takes twenty times its size."""
MAX_BATCH = 4096

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model takes, in the words of timm's ``pretrained_cfg``.

    Attributes:
        name: The graph input's name.
        input_size: ``(channels, height, width)`` in pixels.
        mean: Per channel, of pixels scaled to 0..1.
        std: Per channel, of pixels scaled to 0..1.
        interpolation: Pillow's resampling filter by name.
        crop_pct: Share of the resized image kept by the centre crop (0..1].
        crop_mode: ``center``, ``squash`` or ``border``, as timm defines them.
        layout: ``NHWC`` or ``NCHW`` of the graph input.
        dtype: ``uint8`` (cast and normalise are inside the graph) or ``float32`` (the caller normalises).
        color: Channel order, always ``RGB`` today.
        dynamic_size: Any height and width is accepted by the graph.
        batch: Images per run the graph is fixed to; 0 means any number.
    """

    name: str
    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    layout: str = "NHWC"
    dtype: str = "uint8"
    color: str = "RGB"
    dynamic_size: bool = False
    batch: int = 0


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the model's first output means.

    Attributes:
        name: The graph output's name.
        kind: ``logits`` or ``probabilities``.
        labels: Human names by class index; empty when nobody gave them.
        label_ids: Folder names by class index (WordNet ids for ImageNet); empty when they equal ``labels``.
    """

    name: str
    kind: str = "logits"
    labels: tuple[str, ...] = ()
    label_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything edgecv knows about a model; see the module docstring for where it is kept.

    Attributes:
        architecture: The network's name (``tf_efficientnet_lite0``).
        source: ``weights`` (``package:…``, ``file:…``, ``timm:…``, ``random-init``, ``onnx``), ``sha256``, ``license``.
        made_from: ``file`` (name only) and ``sha256`` of the ONNX file this one was derived from; empty for an export.
        stages: What was done: each ``{"name", "settings", "tools"}``.
        calibration: SHA-256 of every image used to calibrate.
        parity: Each check made: against what, on how many images, result with interval.
        ort_verified: ONNX Runtime versions the file was run with.
        stride: Pixels of the input to one cell of the last feature map; 0 when not known.
        arguments: Of the network's constructor (``num_classes``, ``img_size``, …), so that it can be built again.
        structure: Edits replayed in order on the fresh network: each ``{"step": "prune" | "depthwise" | …, …}``.
        created: ISO date, only from ``SOURCE_DATE_EPOCH``, so that equal inputs give equal bytes.
    """

    architecture: str
    input: InputSpec
    output: OutputSpec
    source: Mapping[str, str] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[Mapping[str, Any], ...] = ()
    calibration: tuple[str, ...] = ()
    parity: tuple[Mapping[str, Any], ...] = ()
    ort_verified: tuple[str, ...] = ()
    task: str = "classify"
    stride: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    structure: tuple[Mapping[str, Any], ...] = ()
    created: str = ""
    schema: int = SCHEMA

    def with_stage(self, name: str, settings: Mapping[str, Any], tools: Mapping[str, str]) -> "Manifest":
        """Return a copy with one more stage recorded."""
        return replace(self, stages=(*self.stages, {"name": name, "settings": settings, "tools": tools}))


def to_metadata(manifest: Manifest) -> dict[str, str]:
    """Return the string pairs to store in ``metadata_props``: the JSON and the flat keys other tools read."""
    size = manifest.input.input_size
    flat = {
        "description": f"{manifest.architecture}, made by edgecv",
        "author": "edgecv",
        "version": str(manifest.schema),
        "license": str(manifest.source.get("license", "")),
        "task": manifest.task,
        "names": json.dumps({str(i): n for i, n in enumerate(manifest.output.labels)}, ensure_ascii=False),
        "stride": str(manifest.stride or ""),
        "imgsz": json.dumps(list(size[1:])),
        "batch": str(manifest.input.batch or "dynamic"),
    }
    body = json.dumps(asdict(manifest), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**flat, KEY: body}


def from_metadata(metadata: Mapping[str, str], where: str) -> Manifest | None:
    """Read a manifest back from a model's string pairs.

    Args:
        metadata: ``metadata_props`` as a mapping, or ONNX Runtime's ``custom_metadata_map``.
        where: The file's name, for messages.

    Returns:
        The manifest, or None for a foreign model without one.

    Raises:
        UsageError: Damaged JSON, unknown or missing keys, wrong types, or a schema newer than this edgecv reads.
    """
    text = metadata.get(KEY)
    if text is None:
        return None
    if len(text) > MAX_MANIFEST_BYTES:
        raise UsageError(f"the manifest in '{where}' is over {MAX_MANIFEST_BYTES} bytes; export the model again.")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"the manifest in '{where}' is damaged ({e}); export the model again.") from e
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UsageError(f"'{where}' has manifest schema {schema!r}, this edgecv reads up to {SCHEMA}; update edgecv.")
    manifest = build(Manifest, raw, f"the manifest in '{where}'")
    try:
        _check(manifest)
    except ValueError as e:
        raise UsageError(f"the manifest in '{where}' is not valid: {e}; export the model again.") from e
    return manifest


def created_now() -> str:
    """Return the ISO date of ``SOURCE_DATE_EPOCH``, or ``""`` when it is not set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdigit():
        return ""
    import datetime

    return datetime.datetime.fromtimestamp(int(epoch), tz=datetime.UTC).isoformat()


def _check(manifest: Manifest) -> None:
    check_input_spec(manifest.input)
    if not manifest.schema >= 1:
        raise ValueError(f"schema {manifest.schema} is not 1 or more")
    output = manifest.output
    if output.kind not in ("logits", "probabilities"):
        raise ValueError(f"output kind {output.kind!r} is neither logits nor probabilities")
    if output.label_ids and len(output.label_ids) != len(output.labels):
        raise ValueError("label_ids and labels differ in length")


def check_input_spec(spec: InputSpec) -> None:
    """Raise ValueError naming the first field of ``spec`` that no model could have."""
    c, h, w = spec.input_size
    if c != 3 or not all(1 <= x <= 16384 for x in (h, w)):
        raise ValueError(f"input_size {spec.input_size} is not (3, height, width) with 1..16384 pixels")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if not all(abs(v) < 1e4 for v in values):
            raise ValueError(f"{name} {values} is not within ±10000")
    if not all(v >= 1e-6 for v in spec.std):
        raise ValueError(f"std {spec.std} is not positive")
    if not 0 <= spec.batch <= MAX_BATCH:
        raise ValueError(f"batch {spec.batch} is not in 0..{MAX_BATCH}")
    for name, value, allowed in (
        ("interpolation", spec.interpolation, INTERPOLATIONS),
        ("crop_mode", spec.crop_mode, CROP_MODES),
        ("layout", spec.layout, ("NHWC", "NCHW")),
        ("dtype", spec.dtype, ("uint8", "float32")),
        ("color", spec.color, ("RGB",)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")
    if not 0 < spec.crop_pct <= 2:
        raise ValueError(f"crop_pct {spec.crop_pct} is not in (0, 2]")
