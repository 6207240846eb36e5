"""Other x86 CPUs on this machine: qemu's user mode runs this Python and ONNX Runtime as they would run there.

qemu translates instructions one by one, so what comes out is what such a CPU computes, while times say nothing about
it. Only the processor is emulated; files, libraries and Python are those of this machine.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgecv.config.device import EMULATED
from edgecv.errors import DeviceUnreachableError, EnvironmentRefusedError, UsageError, nearest
from edgecv.files import MAX_TEXT_BYTES, read_file, sha256_file
from edgecv.workspace import user_cache

PREFIX = EMULATED

SETUP = f"edgecv devices setup {PREFIX}"

_PROGRAMS = ("qemu-x86_64", "qemu-x86_64-static")


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator that is ready to run.

    Attributes:
        program: The executable.
        libraries: Folder of the libraries it needs besides the system's; empty for none.
        version: As it tells.
        sha256: Of the executable.
    """

    program: str
    libraries: str
    version: str
    sha256: str


def cache_folder() -> Path:
    """Return where downloaded emulators lie: in the user's cache, ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return user_cache(PREFIX)


def find_emulator() -> Emulator:
    """Return the emulator that :func:`edgecv.pipeline.emulator_setup.set_up_emulator` laid down, or the system's.

    Raises:
        EnvironmentRefusedError: This machine is not an x86-64 Linux.
        DeviceUnreachableError: There is none yet, or it was changed since.
    """
    check_host()
    record = cache_folder() / "emulator.json"
    if record.is_file():
        try:
            found = Emulator(**json.loads(read_file(record, "record", MAX_TEXT_BYTES))["emulator"])
            same = sha256_file(Path(found.program)) == found.sha256
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise DeviceUnreachableError(f"the emulator in '{record.parent}' is damaged ({e}); run: {SETUP}") from e
        if not same:
            raise DeviceUnreachableError(f"'{found.program}' was changed since it was set up; run: {SETUP}")
        return found
    for name in _PROGRAMS:
        if program := shutil.which(name):
            return describe(Path(program))
    raise DeviceUnreachableError(f"the emulated device '{PREFIX}' is not set up on this machine; run: {SETUP}")


def check_host() -> None:
    """Raise EnvironmentRefusedError where this Python cannot run under an x86-64 user-mode emulator."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EnvironmentRefusedError(
            f"'{PREFIX}' runs this machine's own Python, which takes x86-64 Linux; this is {sys.platform} on "
            f"{platform.machine()}."
        )


def describe(program: Path, libraries: str = "") -> Emulator:
    """Start ``program`` for its version.

    Raises:
        EnvironmentRefusedError: It does not start.
    """
    told = _ask(program, libraries, "--version")
    version = re.search(r"version (\S+(?: \([^)]*\))?)", told)
    return Emulator(str(program), libraries, version[1] if version else told.splitlines()[0], sha256_file(program))


def parse_device(text: str) -> str:
    """Return the CPU of a name such as ``qemu-x86:Haswell``.

    Raises:
        UsageError: It is no such name.
    """
    prefix, _, cpu = text.partition(":")
    if prefix != PREFIX or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", cpu):
        raise UsageError(f"device '{text}' is not an emulated one; name one such as {PREFIX}:Haswell.")
    return cpu


def known_cpus(emulator: Emulator) -> tuple[str, ...]:
    """Return the names of the CPUs that the emulator knows."""
    listing = _ask(Path(emulator.program), emulator.libraries, "-cpu", "help")
    return tuple(line.split()[1] for line in listing.splitlines() if line.startswith("x86 ") and len(line.split()) > 1)


def check_cpu(emulator: Emulator, cpu: str) -> None:
    """Raise UsageError unless the emulator knows ``cpu``."""
    known = known_cpus(emulator)
    if cpu not in known:
        raise UsageError(f"qemu knows no CPU '{cpu}'.{nearest(cpu, known)} All: {emulator.program} -cpu help")


def _ask(program: Path, libraries: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [str(program), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            env=environment(libraries),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise EnvironmentRefusedError(f"the emulator '{program}' does not start: {e}.") from e
    if done.returncode and not done.stdout:  # "-cpu help" lists them and ends with 1
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EnvironmentRefusedError(f"the emulator '{program}' does not start: {last[:200]}.")
    return done.stdout


def environment(libraries: str) -> dict[str, str]:
    """Return the environment in which the emulator finds ``libraries``."""
    if not libraries:
        return dict(os.environ)
    path = os.pathsep.join([libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    return {**os.environ, "LD_LIBRARY_PATH": path}


def as_record(emulator: Emulator, packages: Sequence[dict[str, str]]) -> bytes:
    """Return the record that :func:`find_emulator` reads: the emulator and the packages it came from."""
    return json.dumps({"emulator": asdict(emulator), "packages": list(packages)}, indent=1, sort_keys=True).encode()
