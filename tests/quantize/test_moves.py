import pytest
from small_drafts import small_draft
from small_graphs import SIZE, images, residual_model

from edgecv.quantize.moves import around_tensors, float_work, promising_moves, tensor_sizes
from edgecv.quantize.restrict import without
from edgecv.quantize.sensitivity import Sensitivity, measure_sensitivity

ONE_IMAGE = 8 * SIZE * SIZE


def test_a_tensor_is_freed_by_all_who_touch_it() -> None:
    _, draft = small_draft(residual_model())
    groups = around_tensors(draft)
    assert frozenset({"Conv_2", "Conv_4"}) in groups, "who writes r and who reads it"
    assert frozenset({"Conv_0", "Conv_2", "Add_5"}) in groups, "low is read by the residual too"


def test_work_counts_conversions_once_and_products() -> None:
    _, draft = small_draft(residual_model())
    whole = draft.placement
    sizes = tensor_sizes(draft.model)
    assert sizes["r"] == ONE_IMAGE
    assert float_work(draft.model, whole, whole, sizes) == 0
    dense = 8 * 8 * SIZE * SIZE / 64 + 8  # and the features in front of the classifier, since the Add is float too
    assert float_work(draft.model, whole, without(draft, ["Conv_4"]), sizes) == pytest.approx(2 * ONE_IMAGE + dense)
    depthwise = 9 * ONE_IMAGE / 64
    both = float_work(draft.model, whole, without(draft, ["Conv_2", "Conv_4"]), sizes)
    assert both == pytest.approx(ONE_IMAGE + dense + depthwise), "between them nothing is converted"


def test_the_most_gain_for_its_work_and_the_most_gain_take_turns() -> None:
    own, draft = small_draft(residual_model())
    measured = measure_sensitivity(draft, own, images(12))
    parts = Sensitivity(dict.fromkeys(measured.weights, 1.0), dict.fromkeys(measured.tensors, 0.0), {}, {})
    moves = promising_moves(draft, draft.placement, parts, tensor_sizes(own), 0.5, single=True)
    assert sorted(n for nodes in moves for n in nodes) == sorted(draft.placement.layers)
    sizes = tensor_sizes(own)
    works = {nodes: float_work(draft.model, draft.placement, without(draft, nodes), sizes) for nodes in moves}
    assert moves[0] == min(works, key=lambda nodes: works[nodes]), "all gain the same"
    dear = max(works, key=lambda nodes: works[nodes])
    (name,) = dear
    parts = Sensitivity({**parts.weights, name: 1.01}, parts.tensors, {}, {})
    assert dear in promising_moves(draft, draft.placement, parts, sizes, 0.5, single=True)[:2]


def test_what_gains_too_little_is_left_out() -> None:
    own, draft = small_draft(residual_model())
    parts = measure_sensitivity(draft, own, images(12))
    assert promising_moves(draft, draft.placement, parts, tensor_sizes(own), 1e9, single=False) == []
