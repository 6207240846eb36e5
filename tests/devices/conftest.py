"""A real sshd on the loopback address with keys made for the test, and an ssh that knows it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgecv.config.device import ConnectionConfig, DeviceProfile, load_device

_SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else "")
needs_sshd = pytest.mark.skipif(
    not (_SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="needs OpenSSH's server and client (Debian: openssh-server)",
)


@dataclass
class Loopback:
    """The server, what it needs, and a folder on "the device"."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def root(self) -> Path:
        return self.folder / "device"

    def profile(self, **changes: str) -> DeviceProfile:
        settings = {"kind": "ssh", "host": "board", "python": sys.executable, "folder": str(self.root)} | changes
        return replace(load_device("rpi5"), connection=ConnectionConfig(**settings))

    def left_behind(self) -> list[str]:
        """What a failure must not leave: jobs, and half-received files."""
        return [str(p) for p in (*self.root.glob("jobs/*"), *self.root.glob("store/part-*"))]

    def drop(self) -> None:
        """Cut every connection the server has, as a pulled cable does; it goes on listening."""
        listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        for pid, parent in (line.split() for line in listing.splitlines()[1:]):
            if int(parent) == self.process.pid:
                os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    shutil.copyfile(keys / "user.pub", keys / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (keys / "sshd").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
    )
    server = (keys / "host.pub").read_text().split()
    (keys / "known").write_text(f"[127.0.0.1]:{port} {server[0]} {server[1]}\n")
    (keys / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {keys}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {keys}/known\n"
    )
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {keys}/config "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd drops its privileges
    process = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(keys / "sshd")], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield Loopback(tmp_path, port, process)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here (code {process.returncode})")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd does not listen after 10 s")
