"""Device profiles: what a board or machine can run, each fact with its source (``devices/*.toml``)."""

from dataclasses import dataclass

from edgecv.config.tables import find_shipped, read_table
from edgecv.errors import UsageError
from edgecv.typed import build

SCHEMA = 1
ARCHITECTURES = ("x86_64", "aarch64")


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One device.

    Attributes:
        schema: Version of the file format.
        name: As on the command line; equals the file's name.
        title: For people.
        arch: ``x86_64`` or ``aarch64``.
        isa: Instruction sets, in the names of /proc/cpuinfo.
        providers: Short provider names, first choice first.
        threads: Intra-op threads; 0 means as many as the device has usable cores.
        onnxruntime: The oldest ONNX Runtime the device is expected to have; sets the opset and IR limits.
        sources: Where each fact comes from.
        cores: Physical cores; 0 when it depends on the machine.
        clock_mhz: Highest clock; 0 when it depends on the machine.
        memory_mib: Main memory; 0 when it depends on the machine.
        unmeasured: Names of fields nobody has checked on the device itself.
    """

    schema: int
    name: str
    title: str
    arch: str
    isa: tuple[str, ...]
    providers: tuple[str, ...]
    threads: int
    onnxruntime: str
    sources: tuple[str, ...]
    cores: int = 0
    clock_mhz: int = 0
    memory_mib: int = 0
    unmeasured: tuple[str, ...] = ()


def load_device(name: str) -> DeviceProfile:
    """Load a shipped profile by name, or any by the path of its ``.toml``.

    Raises:
        UsageError: Unknown name, unreadable file, unknown key, wrong type, newer schema, or unknown architecture.
    """
    path = find_shipped("devices", name)
    profile = build(DeviceProfile, read_table(path, "device profile"), str(path))
    if profile.schema > SCHEMA:
        raise UsageError(f"{path}: schema {profile.schema} is newer than this edgecv reads ({SCHEMA}); update edgecv.")
    if profile.arch not in ARCHITECTURES:
        raise UsageError(f"{path}: arch '{profile.arch}' is not one of {', '.join(ARCHITECTURES)}.")
    if profile.name != path.stem:
        raise UsageError(f"{path}: name '{profile.name}' differs from the file's name.")
    return profile
