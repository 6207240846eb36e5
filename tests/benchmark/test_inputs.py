from types import SimpleNamespace

import numpy as np
import pytest

from edgecv.benchmark.inputs import MAX_VARIANTS, image_feeds, input_shape, random_feeds
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec

SPEC = InputSpec("image", (3, 32, 48), (0.5,) * 3, (0.5,) * 3, dynamic_size=True)


def node(
    name: str = "image", kind: str = "tensor(uint8)", shape: tuple[object, ...] = ("batch", 32, 48, 3)
) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=kind, shape=list(shape))


def test_free_batch_axis_takes_the_batch() -> None:
    assert input_shape(node(), 8, None, "m.onnx") == (8, 32, 48, 3)
    assert input_shape(node(shape=(None, 4)), 8, None, "m.onnx") == (8, 4)


def test_fixed_batch_names_the_option_that_works() -> None:
    assert input_shape(node(shape=(2, 32, 48, 3)), 2, None, "m.onnx") == (2, 32, 48, 3)
    with pytest.raises(UsageError, match=r"'m.onnx' is fixed to batch 2 .* --batch 2"):
        input_shape(node(shape=(2, 32, 48, 3)), 1, None, "m.onnx")


@pytest.mark.parametrize(("layout", "expected"), [("NHWC", (1, 32, 48, 3)), ("NCHW", (1, 3, 32, 48))])
def test_free_height_and_width_come_from_the_manifest(layout: str, expected: tuple[int, ...]) -> None:
    spec = InputSpec("image", (3, 32, 48), (0.5,) * 3, (0.5,) * 3, layout=layout)
    shape = ("n", "h", "w", 3) if layout == "NHWC" else ("n", 3, "h", "w")
    assert input_shape(node(shape=shape), 1, spec, "m.onnx") == expected


def test_free_axes_without_a_manifest_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"input 'image' of 'm.onnx' leaves h, w free"):
        input_shape(node(shape=("n", 3, "h", "w")), 1, None, "m.onnx")


def test_random_feeds_differ_from_each_other_and_repeat_with_the_seed() -> None:
    first, again, other = (random_feeds([node()], 2, SPEC, "m.onnx", seed) for seed in (0, 0, 1))
    assert len(first) == MAX_VARIANTS
    assert first[0]["image"].dtype == np.uint8
    assert first[0]["image"].shape == (2, 32, 48, 3)
    assert not np.array_equal(first[0]["image"], first[1]["image"])
    assert np.array_equal(first[3]["image"], again[3]["image"])
    assert not np.array_equal(first[0]["image"], other[0]["image"])


def test_large_inputs_give_fewer_variants() -> None:
    feeds = random_feeds([node(shape=("n", 3, 2048, 2048), kind="tensor(float)")], 1, None, "m.onnx", 0)
    assert 1 <= len(feeds) < MAX_VARIANTS


def test_every_input_of_a_foreign_model_is_filled() -> None:
    nodes = [
        node("x", "tensor(float16)", (1, 4)),
        node("ids", "tensor(int64)", ("n", 7)),
        node("scalar", "tensor(float)", ()),
    ]
    feed = random_feeds(nodes, 1, None, "m.onnx", 0)[0]
    assert {k: (v.dtype.name, v.shape) for k, v in feed.items()} == {
        "x": ("float16", (1, 4)), "ids": ("int64", (1, 7)), "scalar": ("float32", ())
    }  # fmt: skip


def test_input_of_a_type_without_arrays_is_refused() -> None:
    with pytest.raises(UsageError, match=r"input 'text' of 'm.onnx' is tensor\(string\)"):
        random_feeds([node("text", "tensor(string)", (1,))], 1, None, "m.onnx", 0)


def test_images_are_stacked_into_batches_and_repeated_when_too_few() -> None:
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(5)]
    feeds = image_feeds(iter(images), "image", 2)
    assert [f["image"][:, 0, 0, 0].tolist() for f in feeds] == [[0, 1], [2, 3]]
    (few,) = image_feeds(iter(images[:2]), "image", 5)
    assert few["image"][:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0]


def test_only_as_many_images_as_needed_are_read() -> None:
    endless = (np.zeros((2, 2, 3), np.uint8) for _ in iter(int, 1))
    assert len(image_feeds(endless, "image", 3)) == MAX_VARIANTS
