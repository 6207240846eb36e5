"""Every family of vision networks: quantized, loaded, run in int8 where it should be, and near the float answers."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import swept
from small_graphs import MANIFEST, RESIDUAL, RESIDUAL_WEIGHTS, images, run, small_model, sqnr_db

from edgecv.cli.main import main
from edgecv.data.samples import sample_photographs
from edgecv.graph.model_file import load_model, require_manifest
from edgecv.quantize import static
from edgecv.quantize.affine import Range
from edgecv.quantize.coverage import optimized_operators
from edgecv.quantize.static import quantize_static
from edgecv.runtime.preprocess import preprocess

DATA = images(32)
TEST = images(32, seed=9)
HEAD = "g = GlobalAveragePool(last) f = Flatten(g) y = Gemm(f, wy, by)"


@dataclass(frozen=True)
class Family:
    """A small network of one family.

    Attributes:
        body: Its nodes.
        shapes: Its initializers.
        float_layers: Layers with weights that stay float; all others must run in int8.
        int8: Operators without weights in the graph ONNX Runtime runs, at least so often.
        sqnr_db: Bound on signal to noise of the logits.
    """

    body: str
    shapes: Mapping[str, object]
    int8: Mapping[str, int] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()
    sqnr_db: float = 28.0


def convs(features: int, **shapes: tuple[int, ...]) -> dict[str, object]:
    """Weights ``wX`` of the given shapes, fan-in scaled, with biases ``bX``; and a classifier of ``features``."""
    rng = np.random.default_rng(0)
    made: dict[str, object] = {}
    for name, shape in {**shapes, "wy": (features, 10)}.items():
        outputs, fan_in = (shape[1], shape[0]) if len(shape) == 2 else (shape[0], int(np.prod(shape[1:])))
        made[name] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        made[f"b{name[1:]}"] = (rng.standard_normal(outputs) * 0.1).astype(np.float32)
    return made


PLAIN = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a) m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(ar)
    c = Conv<pads=[1,1,1,1]>(m, w1, b1) last = Relu(c) {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(32, 16, 3, 3)),
    {"MaxPool": 1, "QLinearGlobalAveragePool": 1},
    sqnr_db=39,
)

SILU_SE = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) as = Sigmoid(a) am = Mul(a, as)
    d = Conv<pads=[1,1,1,1], group=16>(am, w1, b1) ds = Sigmoid(d) dm = Mul(d, ds)
    p = GlobalAveragePool(dm) r = Conv(p, w2, b2) rs = Sigmoid(r) rm = Mul(r, rs) e = Conv(rm, w3, b3)
    gate = Sigmoid(e) x = Mul(dm, gate) o = Conv(x, w4, b4) last = Add(o, am) {HEAD}
    """,
    convs(16, w0=(16, 3, 3, 3), w1=(16, 1, 3, 3), w2=(4, 16, 1, 1), w3=(16, 4, 1, 1), w4=(16, 16, 1, 1)),
    {"QLinearSigmoid": 4, "QLinearMul": 4, "QLinearAdd": 1, "QLinearGlobalAveragePool": 2},
)  # fmt: skip

HARD_SWISH_SE = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) am = HardSwish(a)
    d = Conv<pads=[1,1,1,1], group=16>(am, w1, b1) dm = HardSwish(d)
    p = GlobalAveragePool(dm) r = Conv(p, w2, b2) rm = Relu(r) e = Conv(rm, w3, b3)
    gate = HardSigmoid<alpha=0.16666667>(e) x = Mul(dm, gate) o = Conv(x, w4, b4) last = Add(o, am) {HEAD}
    """,
    SILU_SE.shapes,
    {"QLinearMul": 1, "QLinearAdd": 1, "QLinearGlobalAveragePool": 2},
)

GROUPED_RESIDUAL = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a)
    c = Conv(ar, w1, b1) cr = Relu(c) d = Conv<pads=[1,1,1,1], group=4>(cr, w2, b2) dr = Relu(d)
    e = Conv(dr, w3, b3) s = Conv(ar, w4, b4) t = Add(e, s) last = Relu(t) {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(32, 16, 1, 1), w2=(32, 8, 3, 3), w3=(32, 32, 1, 1), w4=(32, 16, 1, 1)),
    {"QLinearAdd": 1, "QLinearGlobalAveragePool": 1},
    sqnr_db=43,
)  # fmt: skip

INCEPTION = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a)
    c = Conv(ar, w1, b1) cr = Relu(c) d = Conv<pads=[1,1,1,1]>(ar, w2, b2) dr = Relu(d)
    p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(ar) q = Conv(p, w3, b3) qr = Relu(q)
    j = Concat<axis=1>(cr, dr, qr) o = Conv(j, w4, b4) last = Relu(o) {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(8, 16, 1, 1), w2=(16, 16, 3, 3), w3=(8, 16, 1, 1), w4=(32, 32, 1, 1)),
    {"QLinearConcat": 1, "QLinearAveragePool": 1},
    sqnr_db=40,
)  # fmt: skip

DENSE = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a)
    n1 = Mul(ar, s1) o1 = Add(n1, t1) r1 = Relu(o1) c = Conv<pads=[1,1,1,1]>(r1, w1, b1) j = Concat<axis=1>(ar, c)
    n2 = Mul(j, s2) o2 = Add(n2, t2) r2 = Relu(o2) d = Conv<pads=[1,1,1,1]>(r2, w2, b2) last = Concat<axis=1>(j, d)
    {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(8, 16, 3, 3), w2=(8, 24, 3, 3))
    | {f"{k}{i}": np.random.default_rng(i).uniform(0.5, 1.5, (n, 1, 1)).astype(np.float32)
       for k in "st" for i, n in ((1, 16), (2, 24))},
    sqnr_db=34,
)  # fmt: skip

SHUFFLE = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a)
    left, right = Split<axis=1, num_outputs=2>(ar)
    c = Conv(right, w1, b1) cr = Relu(c) d = Conv<pads=[1,1,1,1], group=8>(cr, w2, b2) e = Conv(d, w3, b3) er = Relu(e)
    j = Concat<axis=1>(left, er)
    k = Reshape(j, apart) l = Transpose<perm=[0,2,1,3,4]>(k) m = Reshape(l, together)
    o = Conv(m, w4, b4) last = Relu(o) {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(8, 8, 1, 1), w2=(8, 1, 3, 3), w3=(8, 8, 1, 1), w4=(32, 16, 1, 1))
    | {"apart": np.array([0, 2, 8, 12, 12]), "together": np.array([0, 16, 12, 12])},
    {"QLinearConcat": 1},
    sqnr_db=42,
)  # fmt: skip

GHOST = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) ar = Relu(a) c = Conv<pads=[1,1,1,1], group=16>(ar, w1, b1) cr = Relu(c)
    j = Concat<axis=1>(ar, cr) o = Conv(j, w2, b2) q = Conv<pads=[1,1,1,1], group=16>(o, w3, b3)
    t = Concat<axis=1>(o, q) s = Conv(j, w4, b4) last = Add(t, s) {HEAD}
    """,
    convs(32, w0=(16, 3, 3, 3), w1=(16, 1, 3, 3), w2=(16, 32, 1, 1), w3=(16, 1, 3, 3), w4=(32, 32, 1, 1)),
    {"QLinearConcat": 2, "QLinearAdd": 1},
)

_BLOCK = """
    n1 = LayerNormalization<axis=-1>(tokens, one, nil)
    q0 = MatMul(n1, wq) q1 = Add(q0, bq) k0 = MatMul(n1, wk) k1 = Add(k0, bk) v0 = MatMul(n1, wv) v1 = Add(v0, bv)
    q2 = Reshape(q1, heads) q = Transpose<perm=[0,2,1,3]>(q2) k2 = Reshape(k1, heads) k = Transpose<perm=[0,2,3,1]>(k2)
    v2 = Reshape(v1, heads) v = Transpose<perm=[0,2,1,3]>(v2)
    s = MatMul(q, k) ss = Mul(s, root) sm = Softmax<axis=-1>(ss) z = MatMul(sm, v)
    z1 = Transpose<perm=[0,2,1,3]>(z) z2 = Reshape(z1, flat) p0 = MatMul(z2, wp) p1 = Add(p0, bp) x1 = Add(p1, tokens)
    n2 = LayerNormalization<axis=-1>(x1, one, nil) h0 = MatMul(n2, wh) h1 = Add(h0, bh)
    e0 = Div(h1, sqrt2) e1 = Erf(e0) e2 = Add(e1, unit) e3 = Mul(h1, e2) h2 = Mul(e3, half)
    o0 = MatMul(h2, wo) o1 = Add(o0, bo) x2 = Add(o1, x1) n3 = LayerNormalization<axis=-1>(x2, one, nil)
"""
_BLOCK_SHAPES: dict[str, object] = {
    "one": np.linspace(0.5, 1.5, 32, dtype=np.float32), "nil": np.zeros(32, np.float32),
    "heads": np.array([0, 9, 2, 16]), "flat": np.array([0, 9, 32]), "root": np.array(0.25, np.float32),
    "sqrt2": np.array(np.sqrt(2), np.float32), "unit": np.array(1, np.float32), "half": np.array(0.5, np.float32),
}  # fmt: skip

VIT = Family(
    f"""
    a = Conv<strides=[4,4]>(image, w0, b0) a1 = Reshape(a, grid) tokens = Transpose<perm=[0,2,1]>(a1) {_BLOCK}
    f = ReduceMean<keepdims=0>(n3, axes) y = Gemm(f, wy, by)
    """,
    convs(32, w0=(32, 3, 4, 4), wq=(32, 32), wk=(32, 32), wv=(32, 32), wp=(32, 32), wh=(32, 64), wo=(64, 32))
    | _BLOCK_SHAPES | {"grid": np.array([0, 32, 9]), "axes": np.array([1])},
    sqnr_db=26,
)  # fmt: skip

MOBILEVIT = Family(
    f"""
    a = Conv<pads=[1,1,1,1], strides=[4,4]>(image, w0, b0) as = Sigmoid(a) am = Mul(a, as)
    u = Reshape(am, grid) tokens = Transpose<perm=[0,2,1]>(u) {_BLOCK}
    u1 = Transpose<perm=[0,2,1]>(n3) u2 = Reshape(u1, square) c = Conv(u2, w1, b1) cs = Sigmoid(c) cm = Mul(c, cs)
    j = Concat<axis=1>(am, cm) o = Conv<pads=[1,1,1,1]>(j, w2, b2) os = Sigmoid(o) last = Mul(o, os) {HEAD}
    """,
    {**VIT.shapes, **convs(32, w0=(32, 3, 3, 3), w1=(32, 32, 1, 1), w2=(32, 64, 3, 3)),
     "square": np.array([0, 32, 3, 3])},
    {"QLinearSigmoid": 3, "QLinearMul": 3, "QLinearConcat": 1},
    sqnr_db=27,
)  # fmt: skip

CONVNEXT = Family(
    f"""
    a = Conv<pads=[1,1,1,1]>(image, w0, b0) d = Conv<pads=[3,3,3,3], group=32>(a, w1, b1)
    t = Transpose<perm=[0,2,3,1]>(d) n = LayerNormalization<axis=-1>(t, one, nil)
    h0 = MatMul(n, wh) h1 = Add(h0, bh) e0 = Div(h1, sqrt2) e1 = Erf(e0) e2 = Add(e1, unit) e3 = Mul(h1, e2)
    h2 = Mul(e3, half) o0 = MatMul(h2, wo) o1 = Add(o0, bo) m = Mul(o1, one) t1 = Transpose<perm=[0,3,1,2]>(m)
    last = Add(t1, a) {HEAD}
    """,
    convs(32, w0=(32, 3, 3, 3), w1=(32, 1, 7, 7), wh=(32, 64), wo=(64, 32)) | _BLOCK_SHAPES,
    sqnr_db=30,
)

FAMILIES = {
    "VGG, RepVGG": PLAIN,
    "MobileNetV2: ReLU6, depthwise, residual": Family(RESIDUAL, RESIDUAL_WEIGHTS, {"QLinearAdd": 1, "MaxPool": 1}),
    "EfficientNet: SiLU, squeeze and excitation": SILU_SE,
    "MobileNetV3: hard-swish, squeeze and excitation": HARD_SWISH_SE,
    "ResNeXt, RegNet: grouped, residual": GROUPED_RESIDUAL,
    "Inception: branches": INCEPTION,
    "DenseNet: growing concatenation": DENSE,
    "ShuffleNet: split and shuffle": SHUFFLE,
    "GhostNet: cheap halves": GHOST,
    "ViT, DeiT": VIT,
    "MobileViT": MOBILEVIT,
    "ConvNeXt": CONVNEXT,
}


def build(family: Family) -> ir.Model:
    return small_model(family.body, family.shapes)


def layers_of(model: ir.Model) -> int:
    """Count the nodes with weights; products of two activations, as in attention, have none."""
    operators = ("Conv", "Gemm", "MatMul")
    return sum(n.op_type in operators and n.inputs[1] is not None and n.inputs[1].is_initializer() for n in model.graph)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_in_int8_near_its_float_answers(name: str) -> None:
    family = FAMILIES[name]
    model = build(family)
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]))
    summary = found.summary
    coverage = summary["coverage"]
    counts = optimized_operators(found.model)
    assert tuple(summary["kept_float"]) == family.float_layers
    assert coverage["conv_float"] == 0
    assert coverage["conv_int8"] + coverage["matmul_int8"] == layers_of(model)
    missing = {op: n for op, n in family.int8.items() if counts[op] < n}
    assert not missing, dict(counts)
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > family.sqnr_db


@pytest.mark.parametrize("name", FAMILIES)
def test_the_bound_tells_a_quantizer_that_clips_too_much(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges_of = static.ranges_of

    def halved(*args: object) -> dict[str, Range]:
        return {k: Range(r.low / 2, r.high / 2) for k, r in ranges_of(*args).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(static, "ranges_of", halved)
    model = build(FAMILIES[name])
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]))
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) < FAMILIES[name].sqnr_db


def test_attention_stays_float_where_it_has_no_weights() -> None:
    model = build(VIT)
    coverage = quantize_static(model, MANIFEST, lambda: iter([DATA])).summary["coverage"]
    assert (coverage["matmul_int8"], coverage["matmul_float"]) == (7, 2)  # scores and their weighted sum
    operators = optimized_operators(quantize_static(model, MANIFEST, lambda: iter([DATA])).model)
    assert operators["BiasGelu"] == 1
    assert operators["Softmax"] == 1
    assert operators["LayerNormalization"] + operators["SkipLayerNormalization"] == 3


SWEEP = {
    "resnet18": 8, "resnet50": 8, "vgg11": 5, "mobilenetv2_100": 3, "mobilenetv3_large_100": 1,
    "mobilenetv4_conv_small": 0.5, "efficientnet_lite0": 2, "efficientnet_b0": 0.5, "xception41": 2,
    "inception_resnet_v2": 2, "seresnet50": 2, "repvgg_a0": 0.3, "convnext_atto": 10, "densenet121": 4,
    "ghostnet_100": 5, "vit_tiny_patch16_224": 15, "deit_tiny_patch16_224": 15, "mobilevit_xs": 10,
    "torchvision:mobilenet_v2": 3,
}  # fmt: skip
"""The networks of the export's sweep with a bound in dB. Their weights are random, and random networks differ widely in
what they make of the same noise: the bounds tell a quantizer that works from one that does not, no more."""


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows = ["network                   int8 convs   products  other  Q/DQ left  logit SQNR  same top-1   seconds"]
    yield rows
    print("\n" + "\n".join(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", swept(SWEEP, ("resnet18", "mobilenetv3_large_100", "vit_tiny_patch16_224", "ghostnet_100"))
)
def test_every_network_of_the_sweep_quantizes_runs_and_is_compared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: list[str]
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.onnx"
    assert main(["export", name, "--random-init", "-o", str(path), "--quiet"]) == 0
    model = load_model(path)
    manifest = require_manifest(model, path)
    photographs = np.stack([preprocess(p, manifest.input) for p in sample_photographs()])
    calibration, judged = photographs[::2], photographs[1::2]
    started = time.monotonic()
    found = quantize_static(model, manifest, lambda: iter(np.array_split(calibration, 2)))
    seconds = time.monotonic() - started
    c = found.summary["coverage"]
    attention = sum(n.op_type == "MatMul" and not n.inputs[1].is_initializer() for n in model.graph)  # type: ignore[union-attr]
    reference, answers = run(model, judged), run(found.model, judged)
    noise, same = sqnr_db(reference, answers), float((reference.argmax(1) == answers.argmax(1)).mean())
    table.append(
        f"{name:25} {c['conv_int8']:4} of {c['conv_int8'] + c['conv_float']:<4}"
        f" {c['matmul_int8']:3} of {c['matmul_int8'] + c['matmul_float']:<4} {c['other_int8']:4}"
        f"  {c['quantize']:3} / {c['dequantize']:<4} {noise:7.1f} dB  {same:9.0%} {seconds:9.1f}"
    )
    assert found.summary["kept_float"] == {}
    assert c["conv_float"] == 0
    assert c["matmul_float"] <= attention
    assert noise > SWEEP[name]


def test_no_token_of_a_transformer_is_clipped_and_convolutions_still_are() -> None:
    model = small_model(VIT.body, {**VIT.shapes, "one": np.where(np.arange(32) == 7, 20, 1).astype(np.float32)})
    scales: dict[str, dict[str, float]] = {}
    for ranges in ("mse", "minmax"):
        graph = quantize_static(model, MANIFEST, lambda: iter([DATA]), ranges=ranges, rewrites=()).model.graph
        scales[ranges] = {
            str(n.inputs[1].name): float(n.inputs[1].const_value.numpy())  # type: ignore[union-attr]
            for n in graph
            if n.op_type == "QuantizeLinear"
        }
    same = {name for name, scale in scales["mse"].items() if scale == scales["minmax"][name]}
    assert {"n1_scale", "n2_scale", "h2_scale", "z2_scale"} <= same
    plain = build(PLAIN)
    found = [quantize_static(plain, MANIFEST, lambda: iter([DATA]), ranges=r).model for r in ("mse", "minmax")]
    assert ir.to_proto(found[0]).SerializeToString() != ir.to_proto(found[1]).SerializeToString()
