"""What a file or a data set holds, as one hash: the same content gives the same hash wherever it lies."""

import hashlib
import json
from pathlib import Path

from edgecv.data.folder import open_dataset
from edgecv.data.shards import are_shards, open_shards
from edgecv.errors import UsageError
from edgecv.files import read_file, sha256_file, write_bytes
from edgecv.progress import Progress, no_progress

TOLD_EVERY = 1000
MAX_RECORD_BYTES = 1 << 30


class Contents:
    """SHA-256 of files, remembered by size and time of change, so that a large data set is read once.

    Args:
        record: Where it is remembered between runs; None to remember nothing. A damaged record is made anew.
    """

    def __init__(self, record: Path | None = None) -> None:
        self.record = record
        self.known: dict[str, list[str | int]] = _read(record) if record is not None and record.is_file() else {}
        self.changed = False

    def file(self, path: Path) -> str:
        """Return the SHA-256 of one file.

        Raises:
            UsageError: It cannot be read.
        """
        try:
            place, info = str(path.resolve()), path.stat()
            stamp = [info.st_size, info.st_mtime_ns]
            entry = self.known.get(place)
            if entry is None or entry[:2] != stamp:
                entry = [*stamp, sha256_file(path)]
                self.known[place], self.changed = entry, True
        except (OSError, ValueError) as e:  # ValueError: a NUL in the name
            raise UsageError(f"'{str(path)[:200]}' cannot be read: {getattr(e, 'strerror', e)}.") from e
        return str(entry[2])

    def data(self, path: Path, progress: Progress = no_progress) -> str:
        """Return the hash of a data set: of every image's name, class and bytes.

        Raises:
            UsageError: As :func:`edgecv.data.folder.open_dataset`, or a file cannot be read.
        """
        if path.suffix.lower() == ".zip" and path.is_file():
            return self.file(path)
        digest = hashlib.sha256()
        if are_shards(path):
            shards = open_shards(path, progress)
            digest.update(repr((shards.class_names, [self.file(tar) for tar in shards.paths])).encode())
            return digest.hexdigest()
        dataset = open_dataset(path)
        for i, ((image, _), c) in enumerate(zip(dataset.samples, dataset.class_indices, strict=True)):
            label = dataset.class_names[c] if c >= 0 else ""
            name = str(image.relative_to(dataset.root))
            digest.update(repr((name, label, self.file(image))).encode(errors="surrogatepass"))
            if (i + 1) % TOLD_EVERY == 0 or i + 1 == len(dataset):
                progress("hash the images", i + 1, len(dataset))
        return digest.hexdigest()

    def save(self) -> None:
        """Write the record, where there is something new to remember."""
        if self.record is not None and self.changed:
            write_bytes(self.record, json.dumps(self.known).encode())
            self.changed = False


def _read(record: Path) -> dict[str, list[str | int]]:
    try:
        known = json.loads(read_file(record, "record", MAX_RECORD_BYTES))
        entries = {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 3}
    except (UsageError, ValueError, AttributeError, RecursionError):
        return {}
    return entries
