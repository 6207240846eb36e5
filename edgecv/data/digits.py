"""Labelled images that come inside an installed package: scikit-learn's 1,797 handwritten digits, 8×8 pixels.

They are the test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998; CC BY 4.0),
with those of one writer next to each other, so that the first two thirds and the rest have few writers in common.
"""

import gzip
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgecv.errors import EnvironmentRefusedError
from edgecv.files import sha256_file
from edgecv.workspace import user_cache

PARTS = {"train": slice(0, 1198), "test": slice(1198, None)}

_FILE = "datasets/data/digits.csv.gz"
_IMAGES = 1797
_SIDE = 8
_LIGHTEST = 16


def digits_file() -> Path:
    """Return the file inside scikit-learn; the package is looked up, not imported.

    Raises:
        EnvironmentRefusedError: It is not installed.
    """
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise EnvironmentRefusedError(
        "the handwritten digits come with scikit-learn, which is not installed; install it with: "
        "pip install 'edgecv[samples]'"
    )


def digits_folder(part: str) -> Path:
    """Return a folder of class folders ``0`` to ``9`` with PNG files, written into the user's cache unless it is there.

    Args:
        part: ``train`` (1,198 images) or ``test`` (599).

    Raises:
        EnvironmentRefusedError: scikit-learn is not installed or holds another file, or the cache cannot be written.
    """
    source = digits_file()
    folder = user_cache("data") / f"digits-{sha256_file(source)[:16]}"
    if not folder.is_dir():
        pixels, labels = _read(source)
        try:
            _write(folder, pixels, labels)
        except OSError as e:
            raise EnvironmentRefusedError(
                f"the handwritten digits cannot be written to '{folder}': {e.strerror}; set XDG_CACHE_HOME to a folder "
                "that can be."
            ) from e
    return folder / part


def _read(source: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    with gzip.open(source) as f:
        table = np.loadtxt(f, delimiter=",", dtype=np.int64)
    good = table.shape == (_IMAGES, _SIDE * _SIDE + 1) and table[:, :-1].min() >= 0 and table[:, :-1].max() <= _LIGHTEST
    if not good:
        raise EnvironmentRefusedError(f"'{source}' is not the file of handwritten digits; install scikit-learn again.")
    pixels = (table[:, :-1] * 255 // _LIGHTEST).astype(np.uint8).reshape(-1, _SIDE, _SIDE)
    return pixels, table[:, -1]


def _write(folder: Path, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Write every part, or nothing: a folder of that name is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for part, rows in PARTS.items():
            for label in range(10):
                (temporary / part / str(label)).mkdir(parents=True)
            for i in range(_IMAGES)[rows]:
                Image.fromarray(pixels[i]).save(temporary / part / str(labels[i]) / f"{i:04d}.png")
        temporary.chmod(0o755)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
