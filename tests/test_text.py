"""Text for people."""

from edgecv.text import megabytes, printable


def test_what_turns_the_order_of_writing_is_shown() -> None:
    assert printable("a\u202eb\u200fc\x85") == "a\\u202eb\\u200fc\\x85"
    assert printable("Zürich – 東京") == "Zürich – 東京"


def test_small_files_are_told_in_kilobytes() -> None:
    assert [megabytes(n) for n in (0, 999, 99_000, 100_000, 18_621_000)] == [
        "0.0 kB",
        "1.0 kB",
        "99.0 kB",
        "0.10 MB",
        "18.62 MB",
    ]
    assert megabytes(18_621_000, digits=1) == "18.6 MB"
