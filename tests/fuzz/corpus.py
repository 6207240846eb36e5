"""The corpus to start from: small legal files of every kind, made here so that none need be kept."""

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from fuzz.targets import safetensors
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgecv.manifest import KEY, InputSpec, Manifest, OutputSpec, to_metadata

ROOT = Path(__file__).parents[2]
SPEC = InputSpec("x", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, layout="NCHW", dtype="float32")


def seeds(target: str) -> list[bytes]:
    """Return the legal inputs of a target, in a fixed order."""
    makers = {
        "manifest": manifests,
        "recipe": lambda: [p.read_bytes() for p in sorted((ROOT / "recipes").glob("*.toml"))],
        "profile": profiles,
        "policy": models,
        "session": models,
        "preprocess": pictures,
        "checkpoint": checkpoints,
    }
    return makers[target]()


def profiles() -> list[bytes]:
    """Every shipped profile under the one name that the target reads."""
    texts = [p.read_text() for p in sorted((ROOT / "devices").glob("*.toml"))]
    return [re.sub(r'(?m)^name = ".*"', 'name = "rpi4"', text).encode() for text in texts]


def manifest() -> Manifest:
    stage = {"name": "export", "settings": {"opset": 18}, "tools": {"torch": "2"}}
    return Manifest("tiny", SPEC, OutputSpec("y", labels=("a", "b")), {"weights": "random-init"}, stages=(stage,))


def manifests() -> list[bytes]:
    return [to_metadata(manifest())[KEY].encode()]


def checkpoints() -> list[bytes]:
    header = {
        "__metadata__": {KEY: to_metadata(manifest())[KEY]},
        "w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    }
    return [safetensors(json.dumps(header).encode(), bytes(16)), safetensors(b"{}")]


def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 40, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", noise.convert("RGB"), {"exif": exif}),
        ("JPEG", noise.convert("CMYK"), {"progressive": True}),
        ("PNG", noise, {"exif": exif}),
        ("PNG", noise.convert("RGB").quantize(8), {"transparency": 1}),
        ("PNG", Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16)), {}),
        ("WEBP", noise, {"lossless": True}),
        ("WEBP", noise.convert("RGB"), {}),
        ("BMP", noise.convert("RGB"), {}),
        ("GIF", noise.convert("RGB").quantize(16), {}),
        ("TIFF", noise, {"compression": "tiff_lzw"}),
        ("TIFF", noise.convert("L"), {}),
        ("PPM", noise.convert("L"), {}),
    ]
    found = []
    for kind, picture, options in kinds:
        stream = BytesIO()
        picture.save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


def models() -> list[bytes]:
    """Small networks that together use the operators exporters write."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        _model(
            """c = Conv<pads=[1,1,1,1], strides=[2,2], group=1, dilations=[1,1], kernel_shape=[3,3]>(x, w, b)
            n = BatchNormalization<epsilon=0.001>(c, b, b, b, v)
            r = Clip(n, lo, hi)
            p = MaxPool<kernel_shape=[2,2], strides=[1,1], ceil_mode=1>(r)
            a = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER">(p)
            g = GlobalAveragePool(a)
            f = Flatten<axis=1>(g)
            y = Gemm<transB=1, alpha=0.5>(f, h)""",
            {"w": weight(4, 3, 3, 3), "b": weight(4), "v": np.ones(4, np.float32), "lo": np.float32(0),
             "hi": np.float32(6), "h": weight(2, 4)},
        ),
        _model(
            """s = Shape(x)
            n = Gather<axis=0>(s, zero)
            u = Unsqueeze(n, axes)
            d = Div(u, one)
            t = Concat<axis=0>(d, rest)
            r = Reshape<allowzero=0>(x, t)
            q = Transpose<perm=[0,2,1]>(r)
            m = MatMul(q, r)
            o = Softmax<axis=-1>(m)
            l = LayerNormalization<axis=-1>(o, g, g)
            e = ReduceMean<keepdims=0>(l, axes1)
            k, i = TopK<axis=-1>(e, two)
            y = Slice(k, axes, two, axes1)""",
            {"zero": np.array(0), "axes": np.array([0]), "one": np.array([1]), "rest": np.array([3, 64]),
             "g": np.ones(64, np.float32), "axes1": np.array([1]), "two": np.array([2])},
        ),
        _model(
            """q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            w = DequantizeLinear<axis=0>(wq, ws, wz)
            c = Conv(d, w)
            p = Pad(c, pads, zero)
            r = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(p, , scales)
            e = DepthToSpace<blocksize=2>(r)
            i = InstanceNormalization(e, one, one)
            y = ReduceMax<keepdims=0>(i, axes)""",
            {"s": np.float32(0.1), "z": np.uint8(128), "wq": rng.integers(-9, 9, (4, 3, 1, 1)).astype(np.int8),
             "ws": np.full(4, 0.1, np.float32), "wz": np.zeros(4, np.int8),
             "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "zero": np.float32(0),
             "scales": np.float32([1, 1, 2, 2]), "one": np.ones(1, np.float32), "axes": np.array([2, 3])},
        ),
        _model(
            """a, b, c = Split<axis=1>(x, parts)
            s = Sigmoid(a)
            m = Mul(s, b)
            w = Where(cond, m, c)
            v = Expand(w, shape)
            l = Tile(v, reps)
            k = ConvTranspose<strides=[2,2], output_padding=[1,1]>(l, t)
            r = Squeeze(k, axes)
            g = Cast<to=7>(r)
            h = Mod(g, seven)
            j = GatherElements<axis=1>(h, idx)
            y = Cast<to=1>(j)""",
            {"parts": np.array([1, 1, 1]), "cond": np.array(True), "shape": np.array([1, 1, 8, 8]),
             "reps": np.array([1, 1, 1, 2]), "t": weight(1, 1, 3, 3), "axes": np.array([0, 1]),
             "seven": np.array(7), "idx": np.zeros((1, 3), np.int64)},
        ),
        _quantized(rng),
    ]  # fmt: skip


def _model(body: str, weights: dict[str, np.ndarray]) -> bytes:
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g (float[n, 3, 8, 8] x) => (float[a, b] y) {{ {body} }}'
    )
    return _finished(proto, weights)


def _quantized(rng: np.random.Generator) -> bytes:
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    weights: dict[str, np.ndarray] = {n: np.float32(0.1) for n in ("xs", "ws", "ys")}
    weights |= {n: np.uint8(7) for n in ("xz", "wz", "yz")} | {"w": rng.integers(0, 9, (4, 3, 1, 1)).astype(np.uint8)}
    nodes = [
        helper.make_node("QLinearConv", names, ["c"]),
        helper.make_node("QLinearAdd", ["c", "ys", "yz", "c", "ys", "yz", "ys", "yz"], ["a"], domain="com.microsoft"),
        helper.make_node(
            "QLinearGlobalAveragePool", ["a", "ys", "yz", "ys", "yz"], ["p"], domain="com.microsoft", channels_last=0
        ),
        helper.make_node("DequantizeLinear", ["p", "ys", "yz"], ["y"]),
    ]
    taken = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 3, 8, 8])]
    graph = helper.make_graph(nodes, "g", taken, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return _finished(helper.make_model(graph, opset_imports=opsets, ir_version=9), weights)


def _finished(proto: onnx.ModelProto, weights: dict[str, np.ndarray]) -> bytes:
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    helper.set_model_props(proto, to_metadata(manifest()))
    return proto.SerializeToString()
