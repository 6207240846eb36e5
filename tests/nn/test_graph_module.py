import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_graphs import images, residual_model, run, small_model

from edgecv.errors import UsageError
from edgecv.nn.graph_module import GraphModule
from edgecv.quantize.basis import prepare_float_model

DATA = images(3)
HEAD = " g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)"
NUMBER = np.array(0.7, np.float32)


def answer(model: ir.Model, batch: np.ndarray) -> np.ndarray:
    module = GraphModule(model)
    with torch.no_grad():
        return module(torch.from_numpy(batch))[module.results[0]].numpy()


def assert_answers_like_onnx_runtime(model: ir.Model, batch: np.ndarray = DATA, limit: float = 1e-4) -> None:
    expected = run(model, batch)
    assert np.abs(answer(model, batch) - expected).max() <= limit * expected.std()


BODIES = {
    "strides, dilation, groups": "r = Conv<strides=[2,1], dilations=[2,1], pads=[1,0,1,0], group=3>(image, d3)",
    "uneven padding": "r = Conv<pads=[0,1,2,0]>(image, w, b)",
    "same padding": 'r = Conv<auto_pad="SAME_LOWER", strides=[2,2], kernel_shape=[3,3]>(image, w, b)',
    "clip without a bound": "a = Conv(image, w, b) r = Clip(a, , k)",
    "max pool": "a = Conv(image, w, b) r = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1], ceil_mode=1>(a)",
    "average pool": "a = Conv(image, w, b) r = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(a)",
    "counted average pool": """a = Conv(image, w, b)
        r = AveragePool<kernel_shape=[3,3], pads=[0,1,1,0], count_include_pad=1>(a)""",
    "hard activations": """a = Conv(image, w, b) h = HardSwish(a) s = HardSigmoid<alpha=0.1666, beta=0.5>(a)
        r = Mul(h, s)""",
    "smooth activations": "a = Conv(image, w, b) s = Sigmoid(a) t = Tanh(a) e = Erf(a) m = Mul(s, t) r = Sub(m, e)",
    "constants": "a = Conv(image, w, b) m = Div(a, k) n = Neg(m) p = Max(n, k) r = Min(p, a, m)",
    "concat and split": """a = Conv(image, w, b) p, q = Split<axis=1>(a, sizes) s = Relu(p) t = LeakyRelu<alpha=0.1>(q)
        r = Concat<axis=1>(t, s, t)""",
    "slices": "a = Conv(image, w, b) r = Slice(a, from, to, axes, by)",
    "pad": "a = Conv(image, w, b) r = Pad(a, pads, k)",
    "reflected pad": 'a = Conv(image, w, b) r = Pad<mode="reflect">(a, pads)',
    "batch norm": "a = Conv(image, w, b) r = BatchNormalization(a, b, b, b, one6)",
    "softmax over heads": """a = Conv(image, w, b) t = Transpose<perm=[0,2,3,1]>(a) s = Softmax<axis=-1>(t)
        n = LayerNormalization(s, b, one6) r = Transpose<perm=[0,3,1,2]>(n)""",
    "shape arithmetic": """a = Conv(image, w, b) s = Shape(a) n = Gather<axis=0>(s, zero) u = Unsqueeze(n, first)
        all = Concat<axis=0>(u, rest) q = Reshape<allowzero=1>(a, all) t = Squeeze(q, last) r = Reshape(t, four)""",
    "range, expand and cast": """a = Conv(image, w, b) i = Range(nought, ten, one) c = Cast<to=1>(i)
        e = Expand(c, square) r = Add(a, e)""",
    "reduced": "a = Conv(image, w, b) m = ReduceMean(a, last) x = ReduceMax(a, last) r = Add(m, x)",
}
SHAPES: dict[str, object] = {
    "w": (6, 3, 3, 3), "b": (6,), "d3": (6, 1, 3, 3), "k": NUMBER, "one6": np.ones(6, np.float32),
    "sizes": np.array([2, 4]), "from": np.array([-9, 1]), "to": np.array([9223372036854775807, 5]),
    "axes": np.array([3, 1]), "by": np.array([2, 1]), "pads": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
    "zero": np.array(0), "first": np.array([0]), "rest": np.array([6, 10, 10, 1]), "last": np.array([-1]),
    "four": np.array([0, 6, 10, 10]), "nought": np.array(0), "ten": np.array(10), "one": np.array(1),
    "square": np.array([10, 1]),
}  # fmt: skip
WIDTHS = {"strides, dilation, groups": 6, "concat and split": 10, "slices": 4}


@pytest.mark.parametrize("case", BODIES)
def test_an_operator_answers_like_onnx_runtime(case: str) -> None:
    words = set(re.findall(r"\w+", BODIES[case]))
    used = {k: v for k, v in SHAPES.items() if k in words}
    model = small_model(BODIES[case] + HEAD, used | {"v": (WIDTHS.get(case, 6), 5)})
    assert_answers_like_onnx_runtime(model)


def test_a_whole_small_network_answers_like_onnx_runtime() -> None:
    assert_answers_like_onnx_runtime(residual_model())


def test_inner_tensors_can_be_kept_and_the_rest_is_let_go() -> None:
    module = GraphModule(residual_model())
    found = module(torch.from_numpy(DATA), keep=["s"])
    assert set(found) == {"s", "y"}
    assert found["s"].shape == (3, 8, 12, 12)


def test_gradients_flow_to_the_input() -> None:
    image = torch.from_numpy(DATA).requires_grad_()
    GraphModule(residual_model())(image)["y"].sum().backward()
    assert image.grad is not None
    assert image.grad.abs().min(dim=0).values.max() > 0


def test_an_unknown_operator_is_refused_by_name() -> None:
    model = small_model("a = Det(image) y = Flatten(a)", {})
    with pytest.raises(UsageError, match=r"operator Det of node 'Det_0'.*--method"):
        GraphModule(model)


def test_an_operator_used_in_a_way_that_is_not_built_is_refused() -> None:
    model = small_model("a = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(image) y = Flatten(a)", {})
    with pytest.raises(UsageError, match=r"MaxPool of node 'MaxPool_0' \(only two dimensions without dilation\)"):
        GraphModule(model)(torch.from_numpy(DATA))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "vit_tiny_patch16_224", "mobilevit_xxs"])
def test_an_exported_network_answers_like_onnx_runtime(name: str, tmp_path: Path) -> None:
    from edgecv.cli.main import main
    from edgecv.graph.model_file import load_model

    path = tmp_path / "model.onnx"
    assert main(["export", name, "--random-init", "-o", str(path), "-q"]) == 0
    model, _ = prepare_float_model(load_model(path))
    shape = [2, *(int(d) for d in list(model.graph.inputs[0].shape or ())[1:])]
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert_answers_like_onnx_runtime(model, batch, 1e-3)
