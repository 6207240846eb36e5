import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn import image_feed
from edgecv.nn.training_data import TrainingData, evaluation_batches, open_training_data, training_batches

SPEC = InputSpec("image", (3, 8, 8), (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
SETTINGS = TrainSettings(batch=4, workers=0, augment=("flip", "rgb-shift"))


def write_shards(folder: Path, name: str, first: int) -> Path:
    folder.mkdir(exist_ok=True)
    for s in range(2):
        with tarfile.open(folder / f"{name}-{s}.tar", "w") as tar:
            for i in range(first + 10 * s, first + 10 * (s + 1)):
                image = io.BytesIO()
                Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(image, "PNG")
                for suffix, data in ((".png", image.getvalue()), (".cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{i:03d}{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "classes.txt").write_text("odd\neven\n")
    return folder / f"{name}-{{0..1}}.tar"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image_feed.forget_images()
    judged = write_shards(tmp_path / "judged", "val", 40)
    return open_training_data(write_shards(tmp_path / "x", "train", 0), judged, seed=0, folder=tmp_path)


def test_batches_are_the_same_for_any_number_of_workers_and_after_a_restart(data: TrainingData) -> None:
    expected = list(training_batches(data, SPEC, SETTINGS, epoch=1, seed=0))
    assert sorted(int(i) for b in expected for i in b.indices) == list(range(20))
    assert all(int(t) == int(i) % 2 for b in expected for i, t in zip(b.indices, b.targets, strict=True))
    image_feed.forget_images()
    settings = TrainSettings(batch=4, workers=2, augment=SETTINGS.augment)
    again = list(training_batches(data, SPEC, settings, epoch=1, seed=0, start_batch=2))
    for a, b in zip(expected[2:], again, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.keys, b.keys)


def test_ranks_have_batches_of_one_size_and_share_no_image(data: TrainingData) -> None:
    ranks = [list(training_batches(data, SPEC, SETTINGS, epoch=0, seed=0, rank=r, world=2)) for r in range(2)]
    assert [len(b.indices) for rank in ranks for b in rank] == [2] * 10
    assert len({int(i) for rank in ranks for b in rank for i in b.indices}) == 20
    with pytest.raises(UsageError, match="multiple"):
        next(iter(training_batches(data, SPEC, SETTINGS, epoch=0, seed=0, world=3)))


def test_held_out_shards_are_judged_in_order(data: TrainingData) -> None:
    (batch,) = evaluation_batches(data.held_out, SPEC, workers=0)
    assert np.array_equal(batch.pixels[:, 0, 0, 0].numpy(), np.arange(40, 60))


def test_a_share_is_held_out_by_class_and_by_the_seed(data: TrainingData, tmp_path: Path) -> None:
    pattern = tmp_path / "x" / "train-{0..1}.tar"
    split = [open_training_data(pattern, seed=s, folder=tmp_path, share=0.2) for s in (0, 0, 1)]
    assert [len(split[0].train), len(split[0].held_out)] == [16, 4]
    assert split[0].digest == split[1].digest != split[2].digest
    (batch,) = evaluation_batches(split[0].held_out, SPEC, workers=0)
    assert batch.targets.bincount().tolist() == [2, 2]


def test_one_set_cannot_train_and_judge(data: TrainingData, tmp_path: Path) -> None:
    pattern = tmp_path / "x" / "train-{0..1}.tar"
    with pytest.raises(UsageError, match="disjoint"):
        open_training_data(pattern, tmp_path / "x" / "train-1.tar", seed=0, folder=tmp_path)


def test_a_broken_image_names_its_place(data: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "x" / "train-1.tar"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PNG") : raw.index(b"PNG") + 3] = b"XXX"
    path.write_bytes(raw)
    for workers in (0, 1):
        settings = TrainSettings(batch=4, workers=workers, augment=("flip",))
        with pytest.raises(UsageError, match=r"the image at byte \d+ of '.*train-1\.tar' cannot be used"):
            list(training_batches(data, SPEC, settings, epoch=0, seed=0))
