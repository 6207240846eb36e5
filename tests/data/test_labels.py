from pathlib import Path

import pytest

from edgecv.data.labels import read_labels
from edgecv.errors import UsageError


def test_names_are_read_in_order_and_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("crane\n  tench, Tinca tinca\ncrane\n\n\n")
    assert read_labels(path) == ("crane", "tench, Tinca tinca", "crane")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a\n\nb\n", b"\xff\xfe\x00"])
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"labels\.txt"):
        read_labels(path)
