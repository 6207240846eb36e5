"""A device over SSH: the system's own ``ssh``, with the user's configuration, keys, agents and jump hosts."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from edgecv.config.device import DeviceProfile
from edgecv.devices.connection import Connection, Line
from edgecv.errors import EnvironmentRefusedError, UsageError

_FAILED = 255  # ssh's own failures (ssh(1), EXIT STATUS)
_OPTIONS = (
    "BatchMode=yes",  # never a question: nobody may be there to answer
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",
    "LogLevel=ERROR",
)

_REASONS = (
    (
        r"Could not resolve hostname",
        "is not known by the name '{host}'; give your ssh configuration a host of that name, or set connection.host in "
        "a profile of your own.",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "shows a host key that is not the known one; make sure it is the right machine, then connect once by hand: "
        "ssh {host}",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "refuses the key; let it in with: ssh-copy-id {host} (edgecv never types a password)",
    ),
    (
        r"Connection refused|timed out|No route to host|Network is unreachable|Host is down",
        "cannot be reached; see whether it is on and listens: ssh {host}",
    ),
    (
        r"closed by|Connection reset|Broken pipe|Timeout, server|Connection to .* closed|mux_client|Control socket",
        "dropped the connection; what ran there was ended and its folder removed; try again.",
    ),
)
"""What OpenSSH writes, and what that means."""


def open_ssh(profile: DeviceProfile) -> Connection:
    """Connect to the host of a profile; one connection is kept for all commands until it is closed.

    Raises:
        EnvironmentRefusedError: There is no ``ssh`` on this machine.
        UsageError: The host is no name but an option.
        DeviceUnreachableError: It cannot be reached, or refuses us.
    """
    host = profile.connection.host
    if not re.fullmatch(r"[A-Za-z0-9_][\w.@:%\[\]-]*", host):
        raise UsageError(f"device '{profile.name}': connection.host '{host}' is not the name of a host.")
    program = shutil.which("ssh")
    if program is None:
        raise EnvironmentRefusedError("there is no ssh on this machine; install OpenSSH's client.")
    sockets = tempfile.mkdtemp(prefix="edgecv-ssh-")
    options = [part for option in (*_OPTIONS, f"ControlPath={sockets}/%C") for part in ("-o", option)]

    def wrap(argv: Sequence[str]) -> list[str]:
        return [program, "-T", *options, "--", host, shlex.join(argv)]

    def close() -> None:
        command = [program, *options, "-O", "exit", "--", host]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        shutil.rmtree(sockets, ignore_errors=True)

    line = Line(
        profile.name,
        profile.connection.python,
        profile.connection.folder,
        wrap,
        lambda code, text: explain(host, code, text),
        close,
    )
    return Connection(line)


def explain(host: str, code: int, text: str) -> str:
    """Return why ssh itself failed, as the rest of a sentence; empty when it did not."""
    if code != _FAILED:
        return ""
    for pattern, reason in _REASONS:
        if re.search(pattern, text):
            return reason.format(host=host)
    last = (text.strip().splitlines() or ["ssh gave no reason; the connection may have dropped"])[-1][:200]
    return f"cannot be used over ssh: {last}; try: ssh {host}"
