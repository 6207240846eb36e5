from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_drafts import small_draft
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.errors import UsageError
from edgecv.nn.finetune import distance, finetune, finetuned, residual_streams
from edgecv.progress import no_progress
from edgecv.quantize.basis import prepare_basis
from edgecv.quantize.calibrate import Observations
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.ladder import Ground, Position
from edgecv.quantize.weights import decode_weight, encode_weight

TRAIN, TEST = images(40, seed=3), images(64, seed=9)


def coarse_draft() -> tuple[ir.Model, Draft]:
    """A draft with weights of five bits: there is much to win back."""
    own, draft = small_draft(residual_model(), TRAIN)
    coarse = {n: encode_weight(decode_weight(w), w.scale * np.float32(8), w.axis) for n, w in draft.weights.items()}
    return own, replace(draft, weights=coarse)


def batches() -> object:
    return iter(np.array_split(TRAIN, 5))


def reached_db(own: ir.Model, draft: Draft) -> float:
    return sqnr_db(run(own, TEST), run(write_quantizers(draft)[0], TEST))


def tune(own: ir.Model, draft: Draft, **changes: object) -> Draft:
    settings: dict[str, object] = {"n_images": len(TRAIN), "epochs": 6, "learning_rate": 0.06, "threads": 1}
    return finetune(draft, own, batches, **(settings | changes))  # type: ignore[arg-type]


def test_it_lowers_the_output_error_on_other_images_and_not_when_switched_off() -> None:
    own, draft = coarse_draft()
    before = reached_db(own, draft)
    assert reached_db(own, tune(own, draft)) > before + 2
    assert tune(own, draft, epochs=0) is draft


def test_codes_chosen_with_care_are_not_rounded_to_nearest_again() -> None:
    own, draft = small_draft(residual_model(), TRAIN)
    rng = np.random.default_rng(0)
    codes = {n: np.clip(w.codes + rng.integers(-1, 2, w.codes.shape), -127, 127) for n, w in draft.weights.items()}
    moved = {n: replace(w, codes=codes[n].astype(np.int8)) for n, w in draft.weights.items()}
    start = replace(draft, weights=moved)
    tuned = tune(own, start, epochs=6, learning_rate=0.015)
    kept = [(tuned.weights[n].codes == w.codes).mean() for n, w in moved.items()]
    assert tuned is not start
    assert min(kept) > 0.95


def test_the_draft_and_the_network_it_started_from_are_not_changed() -> None:
    own, draft = coarse_draft()
    bytes_before = [ir.to_proto(m).SerializeToString() for m in (own, draft.model)]
    codes = {n: w.codes.copy() for n, w in draft.weights.items()}
    tuned = tune(own, draft, epochs=4)
    assert tuned is not draft
    assert [ir.to_proto(m).SerializeToString() for m in (own, draft.model)] == bytes_before
    assert all((draft.weights[n].codes == c).all() for n, c in codes.items())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    own, draft = coarse_draft()
    torch.manual_seed(1)
    first = tune(own, draft, epochs=2)
    torch.manual_seed(2)
    again, other = tune(own, draft, epochs=2), tune(own, draft, epochs=2, seed=1)
    written = [ir.to_proto(write_quantizers(d)[0]).SerializeToString() for d in (first, again, other)]
    assert written[0] == written[1] != written[2]


def test_training_that_only_does_harm_gives_the_draft_back() -> None:
    own, draft = coarse_draft()
    assert tune(own, draft, epochs=1, learning_rate=1e4) is draft


def test_the_threads_of_torch_are_as_before() -> None:
    own, draft = coarse_draft()
    before = torch.get_num_threads()
    tune(own, draft, epochs=0, threads=before + 1)
    assert torch.get_num_threads() == before


def test_progress_counts_the_steps() -> None:
    own, draft = coarse_draft()
    seen: list[tuple[str, int, int]] = []
    tune(own, draft, epochs=2, progress=lambda *report: seen.append(report))
    assert seen[-1] == ("finetune", 16, 16)
    assert [done for _, done, _ in seen] == list(range(1, 17))


def test_a_graph_with_a_fixed_batch_is_tuned_too() -> None:
    own, draft = coarse_draft()
    models = [own.clone(), draft.model.clone()]
    for model in models:
        shape = list(model.graph.inputs[0].shape or ())
        model.graph.inputs[0].shape = ir.Shape([3, *shape[1:]])
    tuned = tune(models[0], replace(draft, model=models[1]), epochs=3)
    assert reached_db(own, replace(tuned, model=_with_free_batch(tuned.model))) > reached_db(own, draft) + 1


def _with_free_batch(model: ir.Model) -> ir.Model:
    copy = model.clone()
    copy.graph.inputs[0].shape = ir.Shape(["batch", *list(copy.graph.inputs[0].shape or ())[1:]])
    return copy


def test_the_rung_moves_the_draft_alone_and_steps_back_when_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    own, draft = coarse_draft()
    basis = prepare_basis(residual_model(), MANIFEST, batches)  # type: ignore[arg-type]
    ground = Ground(basis, batches, TEST[:8], len(TRAIN))  # type: ignore[arg-type]
    position = Position(own, Observations({}, {}, 0), draft)
    faster = partial(finetune, learning_rate=0.06, epochs=6)
    monkeypatch.setattr("edgecv.nn.finetune.finetune", faster)
    found = finetuned(ground, position, no_progress)
    assert found is not None
    assert found.own is own
    assert reached_db(own, found.draft) > reached_db(own, draft)
    monkeypatch.setattr("edgecv.nn.finetune.finetune", lambda draft, *_, **__: draft)
    assert finetuned(ground, position, no_progress) is None


def test_residual_streams_are_the_sums_behind_their_activation() -> None:
    body = """
        a = Conv(image, w, b) c = Conv(a, x) s = Add(a, c) r = Relu(s) k = Add(r, b3)
        t = Add(k, r) g = GlobalAveragePool(t) f = Flatten(g) y = Gemm(f, v)
    """
    shapes: dict[str, object] = {"w": (3, 3, 1, 1), "x": (3, 3, 1, 1), "b": (3,), "b3": (3, 1, 1), "v": (3, 5)}
    assert residual_streams(small_model(body, shapes)) == ["r", "t"]


def test_the_distance_is_zero_for_the_teacher_itself_and_counts_all_streams_as_one_output() -> None:
    target = {"y": torch.randn(4, 5), "s": torch.randn(4, 3, 2, 2), "t": torch.randn(4, 3), "k": torch.tensor([1])}
    assert distance(target, target, ["s", "t"]) == 0
    off = {name: v * 1.1 if v.is_floating_point() else v for name, v in target.items()}
    only_streams = {**off, "y": target["y"]}
    torch.testing.assert_close(distance(only_streams, target, ["s", "t"]), torch.tensor(0.01))
    assert distance({**target, "y": off["y"]}, target, ["s", "t"]) > 0.01


def test_an_operator_that_torch_is_not_taught_is_refused_before_any_work() -> None:
    model = small_model("c = Conv(image, w) d = Det(c) y = Flatten(d)", {"w": (3, 3, 1, 1)})
    _, draft = coarse_draft()
    with pytest.raises(UsageError, match="operator Det"):
        tune(model, draft)
