"""Fetching the x86 emulator from Debian's packages into the user's cache; needs no root and installs nothing."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgecv.errors import EnvironmentRefusedError
from edgecv.files import sha256_file, write_bytes
from edgecv.pipeline.emulator import Emulator, as_record, cache_folder, check_host, describe
from edgecv.progress import Progress, no_progress

PACKAGE = "qemu-user"
"""The dynamically linked one: 12 MB instead of the static one's 60."""

_PROGRAM = Path("usr") / "bin" / "qemu-x86_64"
_TIME_LIMIT_S = 300.0


def set_up_emulator(*, force: bool = False, progress: Progress = no_progress) -> tuple[Emulator, bool]:
    """Fetch the emulator unless it is there, start it once, and record its version and checksums.

    Args:
        force: Fetch it again.
        progress: Told of each step.

    Returns:
        The emulator, and whether it was fetched now.

    Raises:
        EnvironmentRefusedError: Not an x86-64 Linux, no apt here, no way to the packages, or it does not start.
    """
    check_host()
    folder = cache_folder()
    record = folder / "emulator.json"
    if record.is_file() and not force:
        from edgecv.pipeline.emulator import find_emulator

        return find_emulator(), False
    for tool in ("apt-get", "apt-cache", "dpkg-query", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EnvironmentRefusedError(
                f"'{tool}' is not on this machine, so its packages cannot be fetched; install {PACKAGE} with the "
                "system's own package manager, and edgecv finds qemu-x86_64 on the PATH."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as name:
        packages = _fetch(Path(name), progress)
        progress("emulator", 2, 3)
        kept = _keep(Path(name), folder / "root")
    emulator = describe(*kept)
    write_bytes(record, as_record(emulator, packages))
    progress("emulator", 3, 3)
    return emulator, True


def _fetch(folder: Path, progress: Progress) -> list[dict[str, str]]:
    """Download and unpack the package with what it depends on and this machine lacks; return names and checksums."""
    options: list[str] = []
    wanted = _missing([PACKAGE], options)
    progress("emulator", 0, 3)
    if _download(folder, wanted, options):  # the system's package lists may be missing or old; take some of our own
        options = _own_lists(folder)
        wanted = _missing([PACKAGE], options)
        if reason := _download(folder, wanted, options):
            raise EnvironmentRefusedError(
                f"the package {PACKAGE} could not be fetched ({reason}); connect to a Debian or Ubuntu package source, "
                "or install it by hand, and run this again."
            )
    progress("emulator", 1, 3)
    found = []
    for archive in sorted(folder.glob("*.deb")):
        _call(["dpkg-deb", "-x", archive.name, "root"], folder)
        name, version, _ = archive.name.split("_", 2)
        found.append({"name": name, "version": version.replace("%3a", ":"), "sha256": sha256_file(archive)})
    return found


def _missing(names: list[str], options: list[str]) -> list[str]:
    """Return ``names`` and all they depend on that is not installed."""
    wanted: dict[str, None] = dict.fromkeys(names)
    queue = list(names)
    while queue:
        listing = _call(["apt-cache", *options, "depends", queue.pop()], Path("/"), check=False)
        for line in listing.splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind in ("Depends", "PreDepends") and name not in wanted and not name.startswith("<"):
                state = _call(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], Path("/"), check=False)
                if state.strip() != "installed":
                    wanted[name] = None
                    queue.append(name)
    return list(wanted)


def _download(folder: Path, packages: list[str], options: list[str]) -> str:
    """Download packages into ``folder``; return why not, or an empty text."""
    try:
        _call(["apt-get", *options, "-q", "download", *packages], folder)
    except EnvironmentRefusedError as e:
        return str(e)
    return ""


def _own_lists(folder: Path) -> list[str]:
    """Fetch package lists into ``folder`` and return the options that make apt use them."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    options = ["-o", f"Dir::State={folder / 'state'}", "-o", f"Dir::Cache={folder / 'cache'}"]
    options += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root"]
    _call(["apt-get", *options, "-q", "update"], folder, check=False)
    return options


def _keep(folder: Path, root: Path) -> tuple[Path, str]:
    """Move the one program and its libraries to ``root`` (the package brings those of thirty other machines)."""
    unpacked = folder / "root"
    if not (unpacked / _PROGRAM).is_file():
        raise EnvironmentRefusedError(f"the package {PACKAGE} holds no {_PROGRAM.name}; install qemu by hand.")
    shutil.rmtree(root, ignore_errors=True)
    libraries = root / "lib"
    libraries.mkdir(parents=True)
    for library in (*unpacked.glob("usr/lib/*/*.so*"), *unpacked.glob("lib/*/*.so*")):
        if library.is_file():
            shutil.copy(library, libraries / library.name)
    shutil.copy(unpacked / _PROGRAM, root / _PROGRAM.name)
    empty = not any(libraries.iterdir())
    return root / _PROGRAM.name, "" if empty else str(libraries)


def _call(command: list[str], folder: Path, *, check: bool = True) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise EnvironmentRefusedError(f"'{command[0]}' does not run: {e}.") from e
    if done.returncode and check:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise EnvironmentRefusedError(" ".join((lines or ["no reason given"])[0].split())[:200])
    return done.stdout
