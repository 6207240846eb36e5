from collections.abc import Iterator

import numpy as np
import pytest
from small_graphs import SIZE, images, residual_model, small_model

from edgecv.errors import UsageError
from edgecv.quantize.activations import stream_activations

TENSORS = ["low", "r", "s"]


def collected(batch_sizes: list[int], **options: object) -> dict[str, np.ndarray]:
    data = images(sum(batch_sizes))

    def batches() -> Iterator[np.ndarray]:
        yield from np.split(data, np.cumsum(batch_sizes)[:-1])

    found: dict[str, list[np.ndarray]] = {}
    for seen in stream_activations(residual_model(), TENSORS, batches, **options):  # type: ignore[arg-type]
        assert seen.first_image == sum(len(a) for a in found.get(seen.name, []))
        found.setdefault(seen.name, []).append(seen.values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


@pytest.mark.parametrize("budget", [1, 5000, 20_000, 1 << 30])
def test_batches_and_budget_change_nothing_but_the_memory(budget: int) -> None:
    whole = collected([16])
    cut = collected([5, 5, 5, 1], budget_bytes=budget)
    assert list(whole) == TENSORS
    for name in TENSORS:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-5, atol=1e-6)


def test_no_more_than_the_budget_is_held_at_once() -> None:
    one_image = 8 * SIZE * SIZE * 4
    held: dict[int, int] = {}
    stream = stream_activations(residual_model(), TENSORS, lambda: iter([images(8)]), budget_bytes=7 * one_image)
    for seen in stream:
        held[seen.first_image] = held.get(seen.first_image, 0) + seen.values.nbytes
    assert max(held.values()) <= 7 * one_image
    assert len(held) == 4  # two images at a time


def test_progress_counts_the_images_of_every_pass() -> None:
    told: list[tuple[str, int, int]] = []
    collected([6, 4], budget_bytes=1, n_images=10, progress=lambda *a: told.append(a))
    assert told[-1] == ("calibrate", 30, 30)  # three tensors, one pass each


def test_a_graph_of_fixed_batch_takes_a_partial_last_batch() -> None:
    model = residual_model()
    model.graph.inputs[0].shape = model.graph.inputs[0].shape.__class__([4, 3, SIZE, SIZE])  # type: ignore[union-attr]
    data = images(6)
    parts = [s.values for s in stream_activations(model, ["r"], lambda: iter([data[:4], data[4:]]))]
    free = [s.values for s in stream_activations(residual_model(), ["r"], lambda: iter([data]))]
    assert [len(p) for p in parts] == [4, 2]
    np.testing.assert_allclose(np.concatenate(parts), np.concatenate(free), rtol=1e-5, atol=1e-6)


def test_no_image_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"no image to calibrate with.*--data"):
        list(stream_activations(residual_model(), TENSORS, lambda: iter([])))


@pytest.mark.parametrize(
    "batch",
    [images(2).astype(np.float64), images(2)[0], images(2)[:, :, :, :5], (images(2) * 255).astype(np.uint8)],
    ids=["dtype", "rank", "size", "uint8"],
)
def test_a_batch_that_does_not_fit_is_named_with_what_fits(batch: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"'image' takes float32\['any', 3, 12, 12\]"):
        list(stream_activations(residual_model(), TENSORS, lambda: iter([batch])))


def test_a_model_that_fails_on_the_images_is_reported_in_one_sentence() -> None:
    broken = small_model("a = Conv(image, w, b) y = Flatten(a)", {"w": (4, 5, 1, 1), "b": (4,)})
    with pytest.raises(UsageError, match=r"fails on calibration image 0 .*kernel channels"):
        list(stream_activations(broken, ["a"], lambda: iter([images(1)])))


def test_a_model_onnx_runtime_refuses_is_reported_in_one_sentence() -> None:
    broken = small_model("a = NoSuchOperator(image) y = Flatten(a)", {})
    with pytest.raises(UsageError, match=r"refuses the model: .*NoSuchOperator"):
        list(stream_activations(broken, ["a"], lambda: iter([images(1)])))
