"""Text for people: characters that steer a terminal or a page made visible, sizes with a unit that fits."""

import re

# C0 and C1 controls, line and paragraph separators, what turns the writing direction, halves of characters.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_KILOBYTES_BELOW = 1e5


def printable(text: str) -> str:
    r"""Return ``text`` with every character that steers a terminal or the order of writing replaced by its escape.

    File names and labels come from anywhere, and a terminal or a browser obeys what is in them.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def megabytes(size: int, digits: int = 2) -> str:
    """Return a file's size in MB, or in kB where MB would show next to nothing.

    >>> megabytes(18_620_000), megabytes(2_345)
    ('18.62 MB', '2.3 kB')
    """
    return f"{size / 1e3:.1f} kB" if size < _KILOBYTES_BELOW else f"{size / 1e6:.{digits}f} MB"
