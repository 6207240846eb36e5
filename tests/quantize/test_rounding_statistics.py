import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import images, run, small_model

from edgecv.quantize.rounding_statistics import (
    collect_moments,
    sample_inputs,
    split_by_memory,
    weight_rows,
)

DATA = images(6)

WINDOWS = {
    "dense": ("Conv(x, w)", (4, 6, 1, 1)),
    "padded": ("Conv<pads=[1,1,1,1]>(x, w)", (4, 6, 3, 3)),
    "uneven pads, strides and kernel": ("Conv<pads=[0,1,2,3], strides=[2,3]>(x, w)", (4, 6, 3, 5)),
    "dilated": ("Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w)", (4, 6, 3, 3)),
    "grouped": ("Conv<group=3, pads=[1,1,1,1]>(x, w)", (9, 2, 3, 3)),
    "depthwise": ("Conv<group=6, strides=[2,2]>(x, w)", (6, 1, 3, 3)),
    "depthwise with two outputs a channel": ("Conv<group=6>(x, w)", (12, 1, 3, 3)),
    "same upper": ('Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', (4, 6, 4, 3)),
    "same lower": ('Conv<auto_pad="SAME_LOWER", strides=[3,1]>(x, w)', (4, 6, 2, 4)),
    "valid": ('Conv<auto_pad="VALID">(x, w)', (4, 6, 2, 2)),
}


def layer_of(model: ir.Model) -> ir.Node:
    return next(n for n in model.graph if len(n.inputs) > 1 and n.inputs[1].name == "w")  # type: ignore[union-attr]


def inner(model: ir.Model, name: str) -> np.ndarray:
    copy = model.clone()
    copy.graph.outputs[:] = [next(o for n in copy.graph for o in n.outputs if o.name == name)]
    return run(copy, DATA)


@pytest.mark.parametrize("window", WINDOWS)
def test_samples_times_weights_are_what_the_convolution_computes(window: str) -> None:
    text, shape = WINDOWS[window]
    model = small_model(
        f"x = Conv(image, v) c = {text} g = GlobalAveragePool(c) y = Flatten(g)", {"v": (6, 3, 1, 1), "w": shape}
    )
    node = layer_of(model)
    source, result = inner(model, "x"), inner(model, "c")
    rows = weight_rows(node)
    for image, expected in zip(source, result, strict=True):
        samples = sample_inputs(node, image, 10_000, np.random.default_rng(0))
        assert samples.dtype == np.float32
        products = (samples @ np.swapaxes(rows, 1, 2)).transpose(0, 2, 1)
        np.testing.assert_allclose(products.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "shape"),
    [("Gemm(f, w)", (432, 5)), ("Gemm<transB=1>(f, w)", (5, 432)), ("MatMul(f, w)", (432, 5))],
)
def test_samples_times_weights_are_what_a_product_computes(text: str, shape: tuple[int, ...]) -> None:
    model = small_model(f"f = Flatten(image) y = {text}", {"w": shape})
    node = layer_of(model)
    samples = [sample_inputs(node, row, 50, np.random.default_rng(0))[0] for row in DATA.reshape(6, -1)]
    np.testing.assert_allclose(np.concatenate(samples) @ weight_rows(node)[0].T, run(model, DATA), atol=1e-4)


def test_tokens_of_a_transformer_are_samples() -> None:
    model = small_model("t = Transpose<perm=[0,2,3,1]>(image) m = MatMul(t, w) y = Flatten(m)", {"w": (3, 7)})
    found = collect_moments(model, [layer_of(model)], lambda: iter([DATA]), n_images=6)
    moments = next(iter(found.values()))
    assert list(moments.counts) == [3 * 144, 3 * 144]
    rows = DATA.transpose(0, 2, 3, 1).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(moments.covariance()[0], np.cov(rows.T, bias=True), atol=1e-6)
    np.testing.assert_allclose(moments.mean()[0], rows.mean(axis=0), atol=1e-6)


def many_windows() -> tuple[ir.Model, list[ir.Node]]:
    body = """
        a = Conv<pads=[1,1,1,1]>(image, w1) b = Conv<pads=[1,1,1,1]>(image, w2) c = Conv(image, w3)
        d = Conv<pads=[1,1,1,1], group=4>(a, w4) e = Add(d, b)
        g = GlobalAveragePool(e) y = Flatten(g)
    """
    shapes: dict[str, object] = {"w1": (4, 3, 3, 3), "w2": (4, 3, 3, 3), "w3": (4, 3, 3, 3), "w4": (4, 1, 3, 3)}
    model = small_model(body, shapes)
    return model, [n for n in model.graph if n.op_type == "Conv"]


def test_layers_with_the_same_window_share_their_moments() -> None:
    model, nodes = many_windows()
    found = collect_moments(model, nodes, lambda: iter([DATA]), n_images=6)
    first, second, third, fourth = (found[str(n.name)] for n in nodes)
    assert first is second
    assert first is not third
    assert first.squares.shape == (2, 1, 27, 27)
    assert fourth.squares.shape == (2, 4, 9, 9)


def test_the_sample_depends_on_the_seed_and_not_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.quantize import rounding_statistics

    monkeypatch.setattr(rounding_statistics, "SAMPLES", 60)
    monkeypatch.setattr(rounding_statistics, "SAMPLES_PER_INPUT", 1)
    model, nodes = many_windows()

    def squares(*sizes: int, seed: int = 0) -> list[np.ndarray]:
        found = collect_moments(model, nodes, lambda: iter(np.split(DATA, sizes)), n_images=6, seed=seed)
        assert all(m.counts.sum() == 60 for m in found.values())
        return [m.squares for m in found.values()]

    once = squares()
    assert all(np.array_equal(a, b) for a, b in zip(once, squares(1, 4), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(once, squares(seed=1), strict=True))


def test_layers_are_cut_to_fit_the_memory() -> None:
    _, nodes = many_windows()  # three of 2 * 27 * 27 * 4 = 5,832 bytes and one of 2 * 4 * 9 * 9 * 4 = 2,592
    parts = [[str(n.name) for n in part] for part in split_by_memory(nodes, 9_000)]
    assert parts == [["Conv_0"], ["Conv_1"], ["Conv_2", "Conv_3"]]
    assert [len(p) for p in split_by_memory(nodes, 1)] == [1, 1, 1, 1]
    assert [len(p) for p in split_by_memory(nodes)] == [4]
