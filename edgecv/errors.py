"""Errors for the person reading them: what is wrong, why, what to type next; each class carries its exit code."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from edgecv.text import printable

MAX_MESSAGE = 400
"""Characters of a message; what goes into it, a key or a name, may come from a hostile file."""


class EdgecvError(Exception):
    """Base of every error edgecv raises on purpose; the message is one sentence a user can act on."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message as one line that any terminal can show, its middle left out when it is too long."""
        text = printable(super().__str__())
        return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[3 - MAX_MESSAGE // 2 :]}"


class UsageError(EdgecvError):
    """Wrong option, missing or damaged input, unknown name (exit code 2)."""


class GateFailedError(EdgecvError):
    """A limit the user set was not met (exit code 1).

    Attributes:
        report: Everything that was measured before the gate closed, for who wants to see why; None when nothing was.
    """

    exit_code = 1

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        """Keep the report beside the message."""
        super().__init__(message)
        self.report = report


class EnvironmentRefusedError(EdgecvError):
    """A provider, package or download this machine does not have (exit code 3)."""

    exit_code = 3


class UndecidedError(EdgecvError):
    """The data at hand cannot decide; the message says how much more would (exit code 4)."""

    exit_code = 4


class DeviceUnreachableError(EdgecvError):
    """A device did not answer (exit code 5)."""

    exit_code = 5


EXIT_OK = 0
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a hint such as ``" Did you mean 'resnet50'?"``, or ``""`` when nothing is near.

    >>> nearest("resnet5", ["resnet50", "vgg11"])
    " Did you mean 'resnet50'?"
    """
    matches = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=count, cutoff=0.6)
    if not matches:
        return ""
    return f" Did you mean {' or '.join(repr(m) for m in matches)}?"
