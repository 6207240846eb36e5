"""Small networks written as ONNX text, with seeded weights: what a test of a rewrite needs and no more."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from edgecv.manifest import InputSpec, Manifest, OutputSpec

SIZE = 12
SPEC = InputSpec(
    "image", (3, SIZE, SIZE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0, layout="NCHW", dtype="float32"
)
MANIFEST = Manifest("small", SPEC, OutputSpec("y"))


def small_model(
    body: str,
    shapes: Mapping[str, object],
    *,
    outputs: Sequence[str] = ("float[batch, classes] y",),
    opset: int = 18,
    seed: int = 0,
) -> ir.Model:
    """Build a model with input float ``image`` (batch, 3, 12, 12) and ``outputs`` from lines of ONNX text.

    ``shapes`` names the initializers: an array as it is, or a shape to be filled with seeded normal numbers.
    """
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"small (float[batch, 3, {SIZE}, {SIZE}] image) => ({', '.join(outputs)}) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, value in shapes.items():
        array = value if isinstance(value, np.ndarray) else (rng.standard_normal(value) * 0.3).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return ir.from_proto(proto)


def images(count: int = 16, seed: int = 1) -> np.ndarray:
    """Return smooth random images in -1..1, float32 (count, 3, 12, 12)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, 3, 3, 3))
    return np.kron(coarse, np.ones((1, 1, SIZE // 3, SIZE // 3))).astype(np.float32)


def run(model: ir.Model, batch: np.ndarray, *, without: tuple[str, ...] = ()) -> np.ndarray:
    """Return the first output; ``without`` switches optimizers of ONNX Runtime off."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    extra = {"disabled_optimizers": list(without)} if without else {}
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], **extra)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the ratio of signal to error in dB."""
    noise = np.square(reference.astype(np.float64) - candidate).sum()
    return float(10 * np.log10(np.square(reference.astype(np.float64)).sum() / max(noise, 1e-300)))


RESIDUAL = """
    a = Conv<pads=[1,1,1,1]>(image, w1, b1)
    low = Clip(a, zero, six)
    d = Conv<pads=[1,1,1,1], group=8>(low, w2, b2)
    r = Relu(d)
    e = Conv(r, w3, b3)
    s = Add(e, low)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)
    g = GlobalAveragePool(p)
    f = Flatten(g)
    y = Gemm<transB=1>(f, w4, b4)
"""
"""Stem, depthwise, residual, pooling, classifier: everything a mobile network is made of."""

RESIDUAL_WEIGHTS: dict[str, object] = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1), "b3": (8,),
    "w4": (5, 8), "b4": (5,),
    "zero": np.array(0, np.float32), "six": np.array(6, np.float32),
}  # fmt: skip


def residual_model(**changes: object) -> ir.Model:
    """The network of :data:`RESIDUAL`, with some initializers replaced."""
    return small_model(RESIDUAL, RESIDUAL_WEIGHTS | changes)
