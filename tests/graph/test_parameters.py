import numpy as np
from small_graphs import residual_model, small_model

from edgecv.graph.parameters import count_parameters


def _counted(body: str, weights: dict[str, object]) -> dict[str, tuple[int, str]]:
    found = count_parameters(small_model(body, weights, outputs=("float y",)))
    return {str(node.name): (p.count, p.formula) for node, p in found.items()}


def test_layers_count_weight_and_bias_and_limits_are_none() -> None:
    found = {str(n.name): p for n, p in count_parameters(residual_model()).items()}
    assert {k: p.formula for k, p in found.items()} == {
        "Conv_0": "8·3·3·3 + 8", "Conv_2": "8·1·3·3 + 8", "Conv_4": "8·8·1·1 + 8", "Gemm_9": "5·8 + 5",
    }  # fmt: skip
    assert sum(p.count for p in found.values()) == 224 + 80 + 72 + 45
    assert found["Conv_0"].bytes == 4 * 224


def test_a_batch_normalisation_counts_what_it_learned_not_its_statistics() -> None:
    body = "c = Conv(image, w) y = BatchNormalization(c, s, b, m, v)"
    weights = {"w": (8, 3, 1, 1), "s": (8,), "b": (8,), "m": (8,), "v": np.ones(8, np.float32)}
    assert _counted(body, weights) == {"Conv_0": (24, "8·3·1·1"), "BatchNormalization_1": (16, "2·8")}


def test_scales_of_pixels_are_none_and_those_of_layers_are() -> None:
    body = "n = Mul(image, pixel) c = Conv(n, w) y = Mul(c, gamma)"
    weights = {"pixel": (1, 3, 1, 1), "w": (8, 3, 1, 1), "gamma": (1, 8, 1, 1)}
    assert _counted(body, weights) == {"Conv_1": (24, "8·3·1·1"), "Mul_2": (8, "1·8·1·1")}


def test_a_shared_weight_counts_once() -> None:
    body = "a = Conv(image, w) b = Conv(image, w) y = Add(a, b)"
    assert _counted(body, {"w": (8, 3, 1, 1)}) == {"Conv_0": (24, "8·3·1·1")}


def test_a_quantized_weight_counts_its_codes_and_not_their_scales() -> None:
    body = "w = DequantizeLinear<axis=0>(codes, scale, zero) y = Conv(image, w)"
    weights = {
        "codes": np.ones((8, 3, 1, 1), np.int8), "scale": np.ones(8, np.float32), "zero": np.zeros(8, np.int8),
    }  # fmt: skip
    assert _counted(body, weights) == {"Conv_1": (24, "8·3·1·1")}
