from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecv.data import digits
from edgecv.data.digits import digits_folder
from edgecv.data.folder import open_dataset
from edgecv.errors import EnvironmentRefusedError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    truth = datasets.load_digits()
    seen = 0
    for part in ("train", "test"):
        data = open_dataset(digits_folder(part))
        assert data.class_names == tuple("0123456789")
        for (path, _), label in zip(data.samples, data.class_indices, strict=True):
            i = int(path.stem)
            assert label == truth.target[i]
            assert np.array_equal(np.asarray(Image.open(path)), (truth.images[i] * 255 // 16).astype(np.uint8))
            seen += 1
    assert seen == len(truth.target) == 1797
    assert len(open_dataset(digits_folder("test"))) == 599


def test_they_are_written_once_and_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Image.Image, "save", fail)
        with pytest.raises(EnvironmentRefusedError, match=r"No space left.*XDG_CACHE_HOME"):
            digits_folder("train")
    assert list((cache / "edgecv" / "data").iterdir()) == []
    first = digits_folder("train")
    monkeypatch.setattr(digits, "_read", fail)
    assert digits_folder("train") == first


def test_without_scikit_learn_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentRefusedError, match=r"pip install 'edgecv\[samples\]'"):
        digits_folder("train")
