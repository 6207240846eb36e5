"""A teacher's logits kept on disk by image and augmentation, so that a repeated run need not ask again.

Two runs with one seed show the student the same pixels, whatever the loss, the temperature or the student: a search
over those asks the teacher once. The file is disposable: what is damaged or of another teacher is asked anew.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgecv.nn.training_data import Batch

MAX_BYTES = 4 << 30
"""Of one file; ImageNet's 1.28 million images of 1,000 classes take 2.6 GB an epoch."""

MEASURED_BATCHES = 3
"""Batches asked and kept before ``auto`` decides."""

_WORTH = 0.5
"""Kept logits must cost less than this share of asking: below, the disk is for nothing."""


class KeptLogits:
    """Answers from disk where they are there, from the teacher where not.

    Attributes:
        hits: Images answered from disk so far.
        asked: Images the teacher was asked for.
        note: What was measured and decided; empty until it is.
    """

    def __init__(self, path: Path, ask: Callable[[Tensor], Tensor], *, always: bool = False) -> None:
        """Open or make ``path``; with ``always`` nothing is measured and everything kept."""
        self.hits = self.asked = 0
        self.note = ""
        self._ask, self._path, self._always = ask, path, always
        self._asking_s = self._keeping_s = 0.0
        self._batches = 0
        self._open: sqlite3.Connection | None = _open(path)

    def __call__(self, pixels: Tensor, batch: Batch) -> Tensor:
        """Return the teacher's logits of a batch, float32 (N, classes); kept ones are rounded to float16.

        ``pixels`` must be those of ``batch``, not mixed.
        """
        if self._open is None:
            return self._asked(pixels).half().float()  # rounded as kept ones are: a resumed run takes the same steps
        names = list(zip(batch.indices.tolist(), batch.keys.tolist(), strict=True))
        start = time.perf_counter()
        kept = self._read(names)
        self._keeping_s += time.perf_counter() - start
        if kept is not None:
            self.hits += len(names)
            return torch.from_numpy(kept).to(pixels.device)
        answer = self._asked(pixels)
        start = time.perf_counter()
        halves = answer.half().cpu().numpy()
        self._write(names, halves)
        self._keeping_s += time.perf_counter() - start
        self._batches += 1
        if self._batches == MEASURED_BATCHES:
            self._decide()
        return torch.from_numpy(halves.astype(np.float32)).to(pixels.device)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _asked(self, pixels: Tensor) -> Tensor:
        start = time.perf_counter()
        answer = self._ask(pixels)
        self._asking_s += time.perf_counter() - start
        self.asked += len(pixels)
        return answer

    def _decide(self) -> None:
        asking, keeping = (1e6 * s / max(1, self.asked) for s in (self._asking_s, self._keeping_s))
        figures = f"asking the teacher {asking:.0f} µs an image, keeping and reading its logits {keeping:.0f} µs"
        if self._always or keeping < _WORTH * asking:
            self.note = f"{figures}: kept in {self._path} for the next run with this seed"
        else:
            self.note = f"{figures}: not kept"
            self.close()
            self._path.unlink(missing_ok=True)

    def _read(self, names: list[tuple[int, int]]) -> np.ndarray | None:
        assert self._open is not None  # asked only while open
        rows: list[np.ndarray] = []
        with contextlib.suppress(sqlite3.Error):
            for name in names:
                row = self._open.execute("SELECT scores FROM logits WHERE image = ? AND key = ?", name).fetchone()
                if row is None:
                    return None
                rows.append(np.frombuffer(row[0], np.float16))
        if len(rows) != len(names) or len({len(r) for r in rows}) != 1:
            return None
        return np.stack(rows).astype(np.float32)

    def _write(self, names: list[tuple[int, int]], answer: np.ndarray) -> None:
        assert self._open is not None  # asked only while open
        rows: list[tuple[Any, ...]] = [(*name, row.tobytes()) for name, row in zip(names, answer, strict=True)]
        try:
            if self._path.stat().st_size < MAX_BYTES:
                with self._open:
                    self._open.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError):  # a full disk: the run goes on without
            self.close()


def _open(path: Path) -> sqlite3.Connection | None:
    """Open the file, made anew when it is damaged; None where nothing can be written."""
    for _ in range(2):
        with contextlib.suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=5)
            try:
                connection.execute("PRAGMA synchronous = OFF")  # disposable: speed before safety
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS logits"
                    " (image INTEGER, key INTEGER, scores BLOB, PRIMARY KEY (image, key)) WITHOUT ROWID"
                )
                return connection
            except sqlite3.DatabaseError:
                connection.close()
                path.unlink(missing_ok=True)
    return None
