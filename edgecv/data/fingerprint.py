"""What an image file is, in a few bytes: its hash, its format, and a perceptual hash that survives re-encoding."""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edgecv.data.ahead import map_ahead
from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, read_file, sha256_bytes
from edgecv.progress import Progress, no_progress
from edgecv.runtime.preprocess import decode_image

_GRID = 8


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One image file.

    Attributes:
        path: The file.
        sha256: Of its bytes; empty when it cannot be read.
        difference_hash: 64 bits: whether each cell of the picture shrunk to 9x8 gray cells is brighter than its
            right neighbour (Pillow's box filter).
        colors: 48 bytes: the picture shrunk to 4x4 RGB cells; tells apart what the hash, which sees edges only,
            takes for equal.
        format: Pillow's name of the format.
        size: ``(width, height)`` in pixels.
        error: Why the file cannot be used; empty when it can.
    """

    path: Path
    sha256: str
    difference_hash: int = 0
    colors: bytes = b""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


def fingerprint(path: Path, *, decode: bool = True) -> Fingerprint:
    """Read, decode and summarise one image file; a broken one comes back with ``error`` set.

    Without ``decode`` the hash of its bytes alone is filled in.
    """
    sha256 = ""
    try:
        data = read_file(path, "image", MAX_IMAGE_BYTES)
        sha256 = sha256_bytes(data)
        if not decode:
            return Fingerprint(path, sha256)
        image = decode_image(data)
        with Image.open(BytesIO(data)) as header:
            kind = header.format or ""
    except UsageError as e:
        return Fingerprint(path, sha256, error=_reason(str(e)))
    gray = np.asarray(image.convert("L").resize((_GRID + 1, _GRID), Image.Resampling.BOX), np.int16)
    bits = np.packbits(gray[:, :-1] > gray[:, 1:])
    colors = image.resize((4, 4), Image.Resampling.BOX).tobytes()
    return Fingerprint(path, sha256, int.from_bytes(bits.tobytes(), "big"), colors, kind, image.size)


def iter_fingerprints(
    paths: Sequence[Path],
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
    label: str = "reading images",
    decode: bool = True,
) -> Generator[Fingerprint, None, None]:
    """Yield the fingerprint of each path in order, read in threads; no picture stays in memory."""
    with closing(map_ahead(partial(fingerprint, decode=decode), paths, workers=workers)) as results:
        for done, result in enumerate(results, 1):
            progress(label, done, len(paths))
            yield result


def _reason(message: str) -> str:
    return re.sub(r"^(the )?image ('[^']*'|given as bytes) ", "", message)
