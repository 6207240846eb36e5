"""Device profiles: what a board or machine can run, each fact with its source (``devices/*.toml``)."""

from dataclasses import dataclass

from edgecv.config.tables import find_shipped, read_table, shipped_files
from edgecv.errors import UsageError, nearest
from edgecv.typed import build

SCHEMA = 1
ARCHITECTURES = ("x86_64", "aarch64")

EMULATED = "qemu-x86"
"""``qemu-x86:Haswell`` names an emulated CPU on the command line."""


@dataclass(frozen=True, slots=True)
class Int8Scheme:
    """How int8 models for a device are written. The defaults are what runs with the same bits on every CPU.

    Attributes:
        activations: ``uint8`` with a zero point of its own, or ``int8`` symmetric about 0.
        weights_range: ``full``, or ``pairs``: no sum of two neighbouring products may leave 16 bits, in which x86
            without VNNI adds them (:mod:`edgecv.quantize.pair_sums`).
        bias: ``int32`` behind a DequantizeLinear, or ``float32``.
        float_operators: Operators without weights that stay in float there, such as ``Mul``.
        sources: Where this comes from.
        unmeasured: Names of fields nobody has tried on the device itself.
    """

    activations: str = "uint8"
    weights_range: str = "pairs"
    bias: str = "int32"
    float_operators: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    @property
    def portable(self) -> bool:
        """Whether x86 with and without VNNI must compute the same bits."""
        return self.weights_range == "pairs"


PORTABLE = Int8Scheme()
"""Where no device is named."""

FULL_RANGE = Int8Scheme(weights_range="full")
"""CPUs that add int8 products in 32 bits: VNNI, AMX, every ARM."""

INT8_CHOICES = {"activations": ("uint8", "int8"), "weights_range": ("full", "pairs"), "bias": ("int32", "float32")}
"""What the fields of :class:`Int8Scheme` may say."""


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
        int8: How int8 models for it are written.
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
    int8: Int8Scheme = Int8Scheme()
    unmeasured: tuple[str, ...] = ()


def load_device(name: str) -> DeviceProfile:
    """Load a shipped profile by name, or any by the path of its ``.toml``.

    Raises:
        UsageError: Unknown name or an emulated CPU, unreadable file, unknown key, wrong type, newer schema, or unknown
            architecture.
    """
    if name.partition(":")[0] == EMULATED:
        raise UsageError(
            f"'{name}' is an emulated CPU, to run files on, and has no profile; "
            f"edgecv devices setup {EMULATED}, then edgecv verify --data DIR --device {EMULATED}:Haswell"
        )
    path = find_shipped("devices", name)
    profile = build(DeviceProfile, read_table(path, "device profile"), str(path))
    if profile.schema > SCHEMA:
        raise UsageError(f"{path}: schema {profile.schema} is newer than this edgecv reads ({SCHEMA}); update edgecv.")
    if profile.arch not in ARCHITECTURES:
        raise UsageError(f"{path}: arch '{profile.arch}' is not one of {', '.join(ARCHITECTURES)}.")
    if profile.name != path.stem:
        raise UsageError(f"{path}: name '{profile.name}' differs from the file's name.")
    for key, choices in INT8_CHOICES.items():
        if (value := getattr(profile.int8, key)) not in choices:
            hint = nearest(value, choices)
            raise UsageError(f"{path}: int8.{key} '{value}' is not one of {', '.join(choices)}.{hint}")
    return profile


def known_devices() -> list[DeviceProfile]:
    """Return every shipped profile, by name."""
    return [load_device(path.stem) for path in shipped_files("devices")]
