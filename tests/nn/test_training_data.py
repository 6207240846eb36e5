import os
import signal
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_color_folder

from edgecv.config.training import TrainSettings
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.manifest import InputSpec
from edgecv.nn import image_feed
from edgecv.nn.augment import build_pipeline
from edgecv.nn.pixels import normalize
from edgecv.nn.sampling import image_keys
from edgecv.nn.training_data import (
    Batch,
    TrainingData,
    evaluation_batches,
    open_training_data,
    steps_per_epoch,
    training_batches,
)
from edgecv.runtime.preprocess import preprocess, to_model_input

SPEC = InputSpec("image", (3, 16, 16), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), "bilinear", 1.0)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    image_feed.forget_images()
    monkeypatch.setattr(image_feed, "_CHUNK_BYTES", 3 * 16 * 16 * 3)  # three images at a time, to have many chunks


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    run = tmp_path / "run"
    run.mkdir()
    return open_training_data(write_color_folder(tmp_path / "colors", 10, 20), seed=0, folder=run, share=0.2)


def settings(
    workers: int = 0, batch: int = 8, augment: tuple[str, ...] = ("pad-crop", "flip", "rgb-shift")
) -> TrainSettings:
    return TrainSettings(batch=batch, workers=workers, augment=augment)


def taken(batches: Iterable[Batch]) -> list[tuple[list[int], list[int], list[int], bytes]]:
    return [
        (b.indices.tolist(), b.keys.tolist(), b.targets.tolist(), b.pixels.contiguous().numpy().tobytes())
        for b in batches
    ]


def test_held_out_images_are_a_share_of_each_class_and_apart(data: TrainingData) -> None:
    assert data.labels == ("blue", "green", "red")
    assert len(data.train) == 24
    for label in range(3):
        assert sum(c == label for _, c in data.held_out.samples) == 2
    assert not {p for p, _ in data.train.samples} & {p for p, _ in data.held_out.samples}
    assert all(data.labels[label] == path.parent.name for path, label in data.train.samples if label is not None)


def test_the_recorded_division_is_taken_again_whatever_the_seed(tmp_path: Path) -> None:
    root = write_color_folder(tmp_path / "colors", 10, 8)
    first = open_training_data(root, seed=0, folder=tmp_path)
    assert "path,label,side" in (tmp_path / "split.csv").read_text()
    again = open_training_data(root, seed=9, folder=tmp_path)
    assert (again.train, again.held_out, again.digest) == (first.train, first.held_out, first.digest)


@pytest.mark.parametrize("change", ["gone", "new"])
def test_a_division_of_other_images_is_refused(tmp_path: Path, change: str) -> None:
    root = write_color_folder(tmp_path / "colors", 10, 8)
    open_training_data(root, seed=0, folder=tmp_path)
    if change == "gone":
        (root / "red" / "3.png").unlink()
    else:
        (root / "red" / "new.png").write_bytes((root / "red" / "3.png").read_bytes())
    with pytest.raises(UsageError, match=r"red/(3|new)\.png"):
        open_training_data(root, seed=0, folder=tmp_path)


def test_given_held_out_images_keep_the_training_classes(tmp_path: Path) -> None:
    train = write_color_folder(tmp_path / "train", 4, 8)
    judged = write_color_folder(tmp_path / "judged", 2, 8, seed=1)
    for path in (judged / "blue").iterdir():
        path.unlink()
    (judged / "blue").rmdir()
    data = open_training_data(train, judged, seed=0, folder=tmp_path)
    assert {label for _, label in data.held_out.samples} == {1, 2}
    assert not (tmp_path / "split.csv").exists()
    with pytest.raises(UsageError, match="trained on too"):
        open_training_data(train, train, seed=0, folder=tmp_path)


def test_the_digest_changes_with_names_sizes_and_labels(tmp_path: Path) -> None:
    root = write_color_folder(tmp_path / "colors", 6, 8)
    judged = write_color_folder(tmp_path / "judged", 2, 8, seed=1)
    digests = [open_training_data(root, judged, seed=0, folder=tmp_path).digest]
    with (root / "red" / "0.png").open("ab") as f:
        f.write(b"\0")
    digests.append(open_training_data(root, judged, seed=0, folder=tmp_path).digest)
    (root / "red" / "0.png").rename(root / "green" / "x.png")
    digests.append(open_training_data(root, judged, seed=0, folder=tmp_path).digest)
    assert len(set(digests)) == 3


def test_a_zip_trains_as_its_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_color_folder(tmp_path / "colors", 6, 8)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for file in root.rglob("*.png"):
            out.write(file, f"train/{file.relative_to(root)}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = open_training_data(root, seed=0, folder=tmp_path / "a")
    second = open_training_data(tmp_path / "x.zip", seed=0, folder=tmp_path / "b")
    assert first.digest == second.digest


def test_unlabelled_images_cannot_be_trained_on(tmp_path: Path) -> None:
    root = write_color_folder(tmp_path / "colors", 4, 8)
    with pytest.raises(UsageError, match="classifier needs two"):
        open_training_data(root / "red", seed=0, folder=tmp_path)


@pytest.mark.parametrize("augment", [("pad-crop", "flip", "rgb-shift"), ("resized-crop", "rand-augment")])
def test_the_same_bits_whatever_the_number_of_workers(data: TrainingData, augment: tuple[str, ...]) -> None:
    expected = taken(training_batches(data, SPEC, settings(0, augment=augment), epoch=1, seed=3))
    assert [len(indices) for indices, *_ in expected] == [8, 8, 8]
    for workers in (1, 2, 3, -1):
        image_feed.forget_images()
        for _ in range(2):  # read, then kept
            assert taken(training_batches(data, SPEC, settings(workers, augment=augment), epoch=1, seed=3)) == expected


def test_going_on_in_the_middle_of_an_epoch_gives_the_rest_without_reading_what_was_before(data: TrainingData) -> None:
    whole = taken(training_batches(data, SPEC, settings(), epoch=2, seed=0))
    for index in whole[0][0]:
        data.train.samples[index][0].unlink()
    image_feed.forget_images()
    for workers in (0, 2):
        assert taken(training_batches(data, SPEC, settings(workers), epoch=2, seed=0, start_batch=1)) == whole[1:]


def test_epochs_and_seeds_differ_in_order_and_augmentation(data: TrainingData) -> None:
    runs = [taken(training_batches(data, SPEC, settings(), epoch=e, seed=s)) for e, s in ((0, 0), (1, 0), (0, 1))]
    orders = {tuple(i for indices, *_ in run for i in indices) for run in runs}
    keys = [{k for _, keys, *_ in run for k in keys} for run in runs]
    assert len(orders) == 3
    assert len(keys[0] | keys[1] | keys[2]) == 72


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_see_the_batches_of_one_process(data: TrainingData, world: int) -> None:
    alone = list(training_batches(data, SPEC, settings(), epoch=0, seed=0))
    ranks = [list(training_batches(data, SPEC, settings(), epoch=0, seed=0, rank=r, world=world)) for r in range(world)]
    for batch, *parts in zip(alone, *ranks, strict=True):
        pixels = {int(i): p for part in parts for i, p in zip(part.indices, part.pixels, strict=True)}
        assert sorted(pixels) == sorted(batch.indices.tolist())
        assert all(torch.equal(pixels[int(i)], p) for i, p in zip(batch.indices, batch.pixels, strict=True))
        assert max(len(p.indices) for p in parts) - min(len(p.indices) for p in parts) <= 1


def test_an_incomplete_last_batch_is_left_out_unless_it_is_the_only_one(data: TrainingData) -> None:
    assert steps_per_epoch(data, settings(batch=10)) == 2
    assert [len(b.indices) for b in training_batches(data, SPEC, settings(batch=10), epoch=0, seed=0)] == [10, 10]
    assert steps_per_epoch(data, settings(batch=100)) == 1
    assert [len(b.indices) for b in training_batches(data, SPEC, settings(batch=100), epoch=0, seed=0)] == [24]


def test_more_processes_than_images_in_a_batch_are_refused(data: TrainingData) -> None:
    with pytest.raises(UsageError, match="raise --batch"):
        next(iter(training_batches(data, SPEC, settings(batch=2), epoch=0, seed=0, world=4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_in_mid_epoch_is_one_sentence_after_the_batches_before_it(
    data: TrainingData, workers: int
) -> None:
    order = [i for indices, *_ in taken(training_batches(data, SPEC, settings(), epoch=0, seed=0)) for i in indices]
    image_feed.forget_images()
    broken = data.train.samples[order[12]][0]
    broken.write_bytes(broken.read_bytes()[:60])
    batches = iter(training_batches(data, SPEC, settings(workers), epoch=0, seed=0))
    assert next(batches).indices.tolist() == order[:8]
    with pytest.raises(UsageError, match=str(broken)) as caught:
        next(batches)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_the_pixels_of_the_device_in_order(data: TrainingData, workers: int) -> None:
    for _ in range(2):
        batches = list(evaluation_batches(data.held_out, SPEC, batch=4, workers=workers))
        assert [b.indices.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5]]
        for b in batches:
            for i, pixels, target in zip(b.indices.tolist(), b.pixels, b.targets.tolist(), strict=True):
                path, label = data.held_out.samples[i]
                assert np.array_equal(pixels.permute(1, 2, 0).numpy(), preprocess(path, SPEC))
                assert target == label


def test_evaluation_is_divided_among_ranks_without_gap_or_copy(data: TrainingData) -> None:
    parts = [list(evaluation_batches(data.train, SPEC, batch=4, rank=r, world=5, workers=0)) for r in range(5)]
    assert sorted(i for part in parts for b in part for i in b.indices.tolist()) == list(range(24))


def test_what_does_not_fit_is_read_again_and_gives_the_same(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = taken(training_batches(data, SPEC, settings(), epoch=0, seed=0))
    image_feed.forget_images()
    monkeypatch.setattr(image_feed, "MAX_KEPT_BYTES", 1000)
    assert taken(training_batches(data, SPEC, settings(), epoch=0, seed=0)) == expected
    assert image_feed.ImageReader(data.train, build_pipeline(("flip",), SPEC)).kept is None


def test_workers_leave_signals_to_the_parent_and_a_killed_one_is_told(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()
    read = image_feed.ImageReader.__getitem__

    def interrupted(self: image_feed.ImageReader, wanted: image_feed.Wanted) -> torch.Tensor | UsageError:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, wanted)

    monkeypatch.setattr(image_feed.ImageReader, "__getitem__", interrupted)
    assert len(list(training_batches(data, SPEC, settings(2), epoch=0, seed=0))) == 3

    def killed(self: image_feed.ImageReader, wanted: image_feed.Wanted) -> torch.Tensor | UsageError:
        os.kill(os.getpid(), signal.SIGKILL)
        return read(self, wanted)

    monkeypatch.setattr(image_feed.ImageReader, "__getitem__", killed)
    with pytest.raises(EnvironmentRefusedError, match="--workers"):
        list(training_batches(data, SPEC, settings(2), epoch=0, seed=0))


def test_keys_are_distinct_and_not_negative() -> None:
    keys = np.concatenate([image_keys(np.arange(1000), epoch, seed) for epoch in range(5) for seed in range(5)])
    assert keys.dtype == np.int64
    assert keys.min() >= 0
    assert len(set(keys.tolist())) == 25_000


def test_normalised_pixels_are_those_of_the_runtime(data: TrainingData) -> None:
    batch = next(iter(evaluation_batches(data.held_out, SPEC, workers=0)))
    expected = to_model_input(
        batch.pixels.permute(0, 2, 3, 1).numpy(),
        InputSpec("image", SPEC.input_size, SPEC.mean, SPEC.std, layout="NCHW", dtype="float32"),
    )
    assert np.array_equal(normalize(batch.pixels, SPEC).numpy(), expected)
    assert normalize(batch.pixels, SPEC).is_contiguous(memory_format=torch.channels_last)
