import sqlite3

import pytest
import torch

from edgecv.nn.distill.kept_logits import MEASURED_BATCHES, KeptLogits
from edgecv.nn.training_data import Batch


def batch_of(start, keys=None, n=4):
    indices = torch.arange(start, start + n)
    pixels = (indices[:, None, None, None] * torch.ones(1, 3, 2, 2)).to(torch.uint8)
    return Batch(pixels, indices % 2, indices, indices * 7 if keys is None else keys)


def answer(pixels):
    return pixels.float().mean((2, 3)) * torch.tensor([[1.0, 0.5, -1.0]])


def test_the_teacher_is_asked_once_for_the_same_pixels(tmp_path):
    first = KeptLogits(tmp_path / "kept.db", answer, always=True)
    given = first(batch_of(0).pixels, batch_of(0))
    first.close()
    second = KeptLogits(tmp_path / "kept.db", answer, always=True)
    again = second(batch_of(0).pixels, batch_of(0))
    assert torch.equal(given, again)
    assert (second.hits, second.asked) == (4, 0)


def test_another_augmentation_of_the_image_is_asked_anew(tmp_path):
    kept = KeptLogits(tmp_path / "kept.db", answer, always=True)
    kept(batch_of(0).pixels, batch_of(0))
    kept(batch_of(0).pixels, batch_of(0, keys=torch.arange(4) + 100))
    assert kept.asked == 8


def test_kept_logits_come_back_for_another_size_of_batch(tmp_path):
    kept = KeptLogits(tmp_path / "kept.db", answer, always=True)
    for start in (0, 4):
        kept(batch_of(start).pixels, batch_of(start))
    both = batch_of(0, n=8)
    assert torch.equal(kept(both.pixels, both), answer(both.pixels).half().float())
    assert kept.asked == 8


@pytest.mark.parametrize("slow_teacher", [True, False])
def test_what_costs_more_to_keep_than_to_ask_is_not_kept(tmp_path, monkeypatch, slow_teacher):
    # The clock is moved by the teacher alone, so that the decision does not hang on how busy the machine is.
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now.__setitem__(0, now[0] + 1) or now[0])

    def ask(pixels):
        now[0] += 1000 if slow_teacher else 0
        return answer(pixels)

    kept = KeptLogits(tmp_path / "kept.db", ask)
    for start in range(0, 4 * MEASURED_BATCHES, 4):
        kept(batch_of(start).pixels, batch_of(start))
    assert ("not kept" in kept.note) is not slow_teacher
    assert (tmp_path / "kept.db").exists() is slow_teacher


def test_a_damaged_file_is_made_anew(tmp_path):
    (tmp_path / "kept.db").write_bytes(b"no database" * 1000)
    kept = KeptLogits(tmp_path / "kept.db", answer, always=True)
    assert torch.equal(kept(batch_of(0).pixels, batch_of(0)), answer(batch_of(0).pixels).half().float())
    kept.close()
    assert sqlite3.connect(tmp_path / "kept.db").execute("SELECT count(*) FROM logits").fetchone() == (4,)


def test_where_nothing_can_be_written_the_teacher_is_asked(tmp_path):
    (tmp_path / "file").write_text("in the way")
    kept = KeptLogits(tmp_path / "file" / "kept.db", answer, always=True)
    assert torch.equal(kept(batch_of(0).pixels, batch_of(0)), answer(batch_of(0).pixels))
