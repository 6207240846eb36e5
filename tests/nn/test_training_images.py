import numpy as np
import pytest

from edgecv.nn.training_images import SHUFFLED, mirrored_and_shifted, shuffled_batches, with_mirrored


def numbered(count: int) -> np.ndarray:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 1, 2, 2)


@pytest.mark.parametrize("count", [1, 7, SHUFFLED * 3 + 1])
def test_every_image_comes_once_in_another_order(count: int) -> None:
    data = numbered(count)
    found = list(shuffled_batches(lambda: iter(np.array_split(data, 3)), 4, np.random.default_rng(0)))
    assert all(len(batch) == 4 for batch in found[:-1])
    seen = np.concatenate(found)
    assert sorted(seen[:, 0, 0, 0]) == sorted(data[:, 0, 0, 0])
    assert count < 5 or not np.array_equal(seen, data)


def test_no_more_images_are_read_than_are_shuffled() -> None:
    read = 0

    def batches() -> object:
        nonlocal read
        for image in numbered(1000):
            read += 1
            yield image[None]

    next(shuffled_batches(batches, 4, np.random.default_rng(0)))  # type: ignore[arg-type]
    assert read == SHUFFLED + 4


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_mirrored_and_shifted_by_whole_pixels(channels_last: bool) -> None:
    row, column = np.mgrid[:28, :28]
    plane = (row * 28 + column).astype(np.float32)
    image = np.stack([plane, plane + 1000, plane + 2000], axis=-1 if channels_last else 0)
    batch = np.repeat(image[None], 64, axis=0)
    moved = mirrored_and_shifted(batch, np.random.default_rng(0))
    assert (moved.shape, moved.dtype) == (batch.shape, batch.dtype)
    assert np.array_equal(batch, np.repeat(image[None], 64, axis=0))
    first = moved[..., 0] if channels_last else moved[:, 0]
    across, down = np.diff(first[:, 14, 10:18], axis=1), np.diff(first[:, 10:18, 14], axis=1)
    assert set(np.unique(across)) == {-1, 1}
    assert set(np.unique(down)) == {28}
    shifts = {int(v) for v in first[:, 14, 14] // 28 - 14}
    assert shifts == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("axis", [2, 3])
def test_mirror_images_follow_the_images(axis: int) -> None:
    shape = (2, 4, 5, 3) if axis == 2 else (2, 3, 4, 5)
    data = np.arange(120).reshape(shape)
    found = with_mirrored(data)
    np.testing.assert_array_equal(found[:2], data)
    np.testing.assert_array_equal(np.flip(found[2:], axis=axis), data)


def test_what_is_no_image_is_left_alone() -> None:
    data = np.zeros((2, 5))
    assert mirrored_and_shifted(data, np.random.default_rng(0)) is data
    assert with_mirrored(data) is data
