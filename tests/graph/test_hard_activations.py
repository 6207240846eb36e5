import numpy as np
import pytest
from small_graphs import MANIFEST, images, run, small_model, sqnr_db

from edgecv.graph.hard_activations import hard_activations_by_clip
from edgecv.quantize.static import quantize_static

TAIL = "g = GlobalAveragePool(h) f = Flatten(g) y = Gemm(f, v)"
SHAPES: dict[str, object] = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 5)}
FORMS = {
    "HardSwish": "c = Conv(image, w, b) h = HardSwish(c)",
    "split HardSwish": "c = Conv(image, w, b) s = HardSigmoid<alpha=0.16666667, beta=0.5>(c) h = Mul(c, s)",
    "HardSigmoid": "c = Conv(image, w, b) h = HardSigmoid(c)",
    "HardSigmoid without bias": "c = Conv(image, w) h = HardSigmoid<alpha=0.16666667, beta=0.5>(c)",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_stays_the_same_without_the_operator(form: str) -> None:
    model = small_model(f"{FORMS[form]} {TAIL}", SHAPES)
    data = images() * 20  # beyond both bounds
    before = run(model, data)
    assert hard_activations_by_clip(model) == 1
    assert not {n.op_type for n in model.graph} & {"HardSwish", "HardSigmoid"}
    np.testing.assert_allclose(run(model, data), before, atol=2e-5)


def test_a_gate_goes_into_its_convolution_unless_that_is_read_by_others() -> None:
    alone = small_model(f"{FORMS['HardSigmoid']} {TAIL}", SHAPES)
    hard_activations_by_clip(alone)
    assert [n.op_type for n in alone.graph] == ["Conv", "Clip", "GlobalAveragePool", "Flatten", "Gemm"]
    assert "c" not in {o.name for n in alone.graph for o in n.outputs}, "another tensor must not bear its name"
    shared = small_model(f"{FORMS['split HardSwish']} {TAIL}", SHAPES)
    hard_activations_by_clip(shared)
    assert [n.op_type for n in shared.graph][:5] == ["Conv", "Add", "Clip", "Mul", "Mul"]


def test_one_behind_no_convolution_stays_in_float() -> None:
    model = small_model("h = HardSwish(image) c = Conv(h, w, b) g = GlobalAveragePool(c) y = Flatten(g)", SHAPES)
    assert hard_activations_by_clip(model) == 0


def test_a_hard_swish_network_becomes_all_int8() -> None:
    body = "c = Conv(image, w, b) k = HardSwish(c) h = Conv(k, w2, b) " + TAIL
    model = small_model(
        body,
        SHAPES
        | {"w2": (8, 8, 1, 1), "w": 2 * np.random.default_rng(5).standard_normal((8, 3, 3, 3)).astype(np.float32)},
    )
    data = images(24)
    found = quantize_static(model, MANIFEST, lambda: iter([data]))
    coverage = found.summary["coverage"]
    assert (coverage["quantize"], coverage["dequantize"], coverage["other_int8"]) == (1, 0, 3)  # Add, Mul, pool
    assert sqnr_db(run(model, data), run(found.model, data)) > 25
    plain = quantize_static(model, MANIFEST, lambda: iter([data]), rewrites=())
    assert plain.summary["coverage"]["quantize"] > 1
