import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from small_graphs import MANIFEST, SIZE, images, residual_model, small_model

from edgecv.quantize.heads import HEAD_REASON, detection_head
from edgecv.quantize.static import quantize_static

DATA = images(8)

TRUNK = """
    a = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w0) ar = Relu(a)
    deep = Conv<pads=[1,1,1,1], strides=[2,2]>(ar, w1) dr = Relu(deep)
"""
HEAD = """
    bt1 = Conv(ar, w2) br1 = Relu(bt1) b1 = Conv(br1, wb) b1t = Transpose<perm=[0,2,3,1]>(b1) b1r = Reshape(b1t, by4)
    bt2 = Conv(dr, w2) br2 = Relu(bt2) b2 = Conv(br2, wb) b2t = Transpose<perm=[0,2,3,1]>(b2) b2r = Reshape(b2t, by4)
    c1 = Conv(ar, wc) c1t = Transpose<perm=[0,2,3,1]>(c1) c1r = Reshape(c1t, by5)
    c2 = Conv(dr, wc) c2t = Transpose<perm=[0,2,3,1]>(c2) c2r = Reshape(c2t, by5)
    boxes = Concat<axis=1>(b1r, b2r)
"""
SEPARATE = f"{TRUNK} {HEAD} scores = Concat<axis=1>(c1r, c2r)"
WITH_SIGMOID = f"{TRUNK} {HEAD} c = Concat<axis=1>(c1r, c2r) scores = Sigmoid(c)"
JOINED = f"{TRUNK} {HEAD} c = Concat<axis=1>(c1r, c2r) s = Sigmoid(c) both = Concat<axis=2>(boxes, s)"
SUPPRESSED = f"""{TRUNK} {HEAD} c = Concat<axis=1>(c1r, c2r) s = Transpose<perm=[0,2,1]>(c)
    picked = NonMaxSuppression(boxes, s, most, iou)
"""
SHAPES: dict[str, object] = {
    "w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (8, 16, 1, 1), "wb": (8, 8, 1, 1), "wc": (10, 16, 1, 1),
    "by4": np.array([0, -1, 4]), "by5": np.array([0, -1, 5]), "most": np.array([10]), "iou": np.float32([0.5]),
}  # fmt: skip
FLOATS = {"boxes": "float[batch, n, 4]", "scores": "float[batch, n, 5]", "both": "float[batch, n, 9]"}


def detector(body: str, *outputs: str) -> ir.Model:
    declared = ", ".join(f"{FLOATS.get(o, 'int64[k, 3]')} {o}" for o in outputs)
    text = (
        f'<ir_version: 8, opset_import: ["" : 18]> small (float[batch, 3, {SIZE}, {SIZE}] image) => ({declared})'
        f"{{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, value in SHAPES.items():
        array = value if isinstance(value, np.ndarray) else (rng.standard_normal(value) * 0.3).astype(np.float32)
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(proto)


DETECTORS = {
    "boxes and scores": (SEPARATE, ("boxes", "scores")),
    "scores behind a Sigmoid": (WITH_SIGMOID, ("boxes", "scores")),
    "one joined output": (JOINED, ("both",)),
    "selected in the graph": (SUPPRESSED, ("picked",)),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_layers_for_boxes_alone_or_scores_alone_are_the_head(name: str) -> None:
    body, outputs = DETECTORS[name]
    assert detection_head(detector(body, *outputs)) == ("bt1", "b1", "bt2", "b2", "c1", "c2")


def test_a_head_stays_float_with_its_reason_and_the_trunk_is_int8() -> None:
    body, outputs = DETECTORS["boxes and scores"]
    summary = quantize_static(detector(body, *outputs), MANIFEST, lambda: iter([DATA])).summary
    assert summary["kept_float"] == dict.fromkeys(("bt1", "b1", "bt2", "b2", "c1", "c2"), HEAD_REASON)
    assert (summary["coverage"]["conv_int8"], summary["coverage"]["conv_float"]) == (2, 6)


def test_a_head_is_quantized_on_request_but_for_what_writes_the_outputs() -> None:
    body, outputs = DETECTORS["scores behind a Sigmoid"]
    summary = quantize_static(detector(body, *outputs), MANIFEST, lambda: iter([DATA]), int8_heads=True).summary
    assert HEAD_REASON not in summary["kept_float"].values()
    assert summary["coverage"]["conv_int8"] >= 4


def test_a_name_given_by_the_user_keeps_the_users_reason() -> None:
    body, outputs = DETECTORS["boxes and scores"]
    model = detector(body, *outputs)
    summary = quantize_static(model, MANIFEST, lambda: iter([DATA]), exclude=("bt1",)).summary
    assert summary["kept_float"]["bt1"] == "excluded by the user"
    assert summary["kept_float"]["b1"] == HEAD_REASON


@pytest.mark.parametrize(
    "body",
    [
        "g = GlobalAveragePool(image) f = Flatten(g) h = Gemm(f, w) y = Concat<axis=1>(h, f)",
        "g = GlobalAveragePool(image) f = Flatten(g) y = Gemm(f, w)",
    ],
)
def test_a_classifier_has_no_head(body: str) -> None:
    assert detection_head(small_model(body, {"w": (3, 4)})) == ()
    assert detection_head(residual_model()) == ()


def test_boxes_with_nothing_beside_them_are_no_head() -> None:
    assert (
        detection_head(detector(f"{TRUNK} {HEAD}".split("c1 =")[0] + "boxes = Concat<axis=1>(b1r, b2r)", "boxes")) == ()
    )


def test_the_model_is_not_changed() -> None:
    model = detector(SEPARATE, "boxes", "scores")
    before = ir.to_proto(model).SerializeToString()
    detection_head(model)
    assert ir.to_proto(model).SerializeToString() == before
