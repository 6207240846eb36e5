"""Fixtures every test may use: tiny models with a manifest, real photographs where they are at hand."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgecv.manifest import InputSpec, Manifest, OutputSpec, to_metadata

REPOSITORY = Path(__file__).parent.parent
TINY_SIZE = 32
TINY_LABELS = ("red", "green", "blue")


def tiny_manifest(size: int = TINY_SIZE, **changes: object) -> Manifest:
    """A manifest for :func:`build_tiny_model`."""
    spec = InputSpec("image", (3, size, size), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0)
    fields: dict[str, object] = {
        "architecture": "tiny",
        "input": spec,
        "output": OutputSpec("logits", labels=TINY_LABELS, label_ids=TINY_LABELS),
        "source": {"weights": "random-init"},
    }
    return Manifest(**(fields | changes))  # type: ignore[arg-type]


def build_tiny_model(
    path: Path,
    *,
    size: int = TINY_SIZE,
    noise: float = 0.0,
    seed: int = 0,
    with_manifest: bool = True,
    **changes: object,
) -> Path:
    """Write a small CNN: uint8 (N, H, W, 3) -> normalise -> Conv -> Relu -> Conv -> Clip -> pool -> Gemm -> 3 logits.

    It tells apart images that are mostly red, green or blue, so that labelled data can be made in a test.
    ``noise`` perturbs the weights: a candidate that differs from the reference.
    """
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)

    conv1 = weight(8, 3, 3, 3)
    conv1[:3, :, 1, 1] += np.eye(3, dtype=np.float32)
    conv2 = weight(8, 8, 3, 3)
    conv2[:3, :3, 1, 1] += np.eye(3, dtype=np.float32)
    head = weight(3, 8)
    head[:, :3] += 4 * np.eye(3, dtype=np.float32)
    shake = np.random.default_rng(seed + 1)
    arrays = {
        "scale": np.full((1, 3, 1, 1), 1 / 127.5, np.float32),
        "shift": np.full((1, 3, 1, 1), -1.0, np.float32),
        "conv1.weight": conv1, "conv1.bias": weight(8),
        "conv2.weight": conv2, "conv2.bias": weight(8),
        "head.weight": head, "head.bias": weight(3),
        "low": np.float32(0.0), "high": np.float32(6.0),
    }  # fmt: skip
    if noise:
        for name in ("conv1.weight", "conv2.weight", "head.weight"):
            arrays[name] = arrays[name] + noise * shake.standard_normal(arrays[name].shape).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["nchw", "scale"], ["scaled"], "scaled"),
        helper.make_node("Add", ["scaled", "shift"], ["normalised"], "normalised"),
        helper.make_node("Conv", ["normalised", "conv1.weight", "conv1.bias"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c2", "low", "high"], ["r2"], "clip2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if with_manifest:
        helper.set_model_props(model, to_metadata(tiny_manifest(size, **changes)))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_color_folder(root: Path, per_class: int = 6, size: int = 48, seed: int = 0) -> Path:
    """Write ``root/<red|green|blue>/<i>.png``: noisy images that the tiny model classifies rightly."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(TINY_LABELS):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 120, (size, size, 3))
            pixels[..., channel] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def trusted_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test open models with loops, or weights that are not finite."""
    monkeypatch.setenv("EDGECV_POLICY", "relaxed")


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def color_folder(tmp_path: Path) -> Path:
    return write_color_folder(tmp_path / "colors")


def _no_emulator() -> str:
    """Return why emulated devices cannot be tested here; empty when they can."""
    from edgecv.errors import EdgecvError
    from edgecv.pipeline.emulator import find_emulator

    try:
        find_emulator()
    except EdgecvError as e:
        return str(e)
    return ""


needs_emulator = pytest.mark.skipif(bool(_no_emulator()), reason=_no_emulator())


def swept(names: Iterable[str], always: Iterable[str]) -> list[object]:
    """Return test parameters for ``names``: those of ``always`` in every run, the others marked ``sweep``."""
    always = tuple(always)
    return [name if name in always else pytest.param(name, marks=pytest.mark.sweep) for name in names]


def _imagenet(name: str) -> Path:
    root = Path(os.environ.get("EDGECV_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"needs the ImageNet photographs in {root / name} (set EDGECV_TEST_DATA)")
    return root / name


@pytest.fixture
def imagenet_calib() -> Path:
    return _imagenet("imagenet-calib")


@pytest.fixture
def imagenet_eval() -> Path:
    return _imagenet("imagenet-eval")
