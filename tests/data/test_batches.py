import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_manifest
from PIL import Image

from edgecv.data import batches
from edgecv.data.batches import iter_batches
from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.runtime.preprocess import preprocess

SPEC = tiny_manifest().input
LABELS = ("red", "green", "blue")


def test_batches_keep_order_labels_and_a_smaller_last_one(color_folder: Path) -> None:
    dataset = open_dataset(color_folder, LABELS)
    got = list(iter_batches(dataset, SPEC, 4, workers=3))
    assert [len(b.images) for b in got] == [4, 4, 4, 4, 2]
    assert np.concatenate([b.indices for b in got]).tolist() == list(range(18))
    assert np.concatenate([b.labels for b in got]).tolist() == [label for _, label in dataset.samples]
    assert got[0].images.dtype == np.uint8
    assert got[0].images.shape == (4, 32, 32, 3)
    assert np.array_equal(got[1].images[2], preprocess(dataset.samples[6][0], SPEC))


def test_unlabelled_images_have_label_minus_one(color_folder: Path) -> None:
    assert set(next(iter_batches(open_dataset(color_folder / "red"), SPEC, 8)).labels.tolist()) == {-1}


def test_limit_spreads_over_all_classes(color_folder: Path) -> None:
    dataset = open_dataset(color_folder, LABELS)
    (batch,) = iter_batches(dataset, SPEC, 8, limit=6)
    assert batch.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert batch.indices.tolist() == [0, 3, 6, 9, 12, 15]


def test_a_broken_image_is_named(color_folder: Path) -> None:
    broken = color_folder / "green" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"green/3\.png"):
        list(iter_batches(open_dataset(color_folder), SPEC, 4))


def test_skipped_images_are_missing_from_the_indices(color_folder: Path) -> None:
    (color_folder / "green" / "3.png").write_bytes(b"no image")
    (color_folder / "red" / "5.png").write_bytes(b"the last one")
    got = list(iter_batches(open_dataset(color_folder), SPEC, 4, on_error="skip"))
    assert sum(len(b.images) for b in got) == 16
    assert set(range(18)) - set(np.concatenate([b.indices for b in got]).tolist()) == {9, 17}


def test_a_set_of_broken_images_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no")
    with pytest.raises(UsageError, match="none of the 1 images"):
        list(iter_batches(open_dataset(tmp_path), SPEC, 4, on_error="skip"))


def test_a_file_that_vanishes_meanwhile_is_named(color_folder: Path) -> None:
    dataset = open_dataset(color_folder)
    dataset.samples[5][0].unlink()
    with pytest.raises(UsageError, match=dataset.samples[5][0].name):
        list(iter_batches(dataset, SPEC, 32))


def test_decoding_stays_a_bounded_distance_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(60):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
    started = []
    lock = threading.Lock()

    def counted(path: Path, spec: object) -> np.ndarray:
        with lock:
            started.append(path)
        return preprocess(path, SPEC)

    monkeypatch.setattr(batches, "preprocess", counted)
    taken = iter_batches(open_dataset(tmp_path), SPEC, 4, workers=2)
    next(taken)
    taken.close()  # type: ignore[attr-defined]
    assert len(started) <= 4 + 8
