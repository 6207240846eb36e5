"""Device profiles: what a board or machine can run, each fact with its source (``devices/*.toml``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecv.config.tables import find_shipped, read_table, shipped_files
from edgecv.errors import UsageError, nearest
from edgecv.typed import build

SCHEMA = 1
ARCHITECTURES = ("x86_64", "aarch64", "wasm32")

CONNECTIONS = ("none", "local", "ssh")
"""How a device is reached; see :mod:`edgecv.devices`."""

FACTS = ("isa", "cores", "clock_mhz", "memory_mib", "power_w", "onnxruntime", "providers", "simd_channels")
"""Facts about a device that a source must name where a profile states them."""

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
class Limits:
    """What an application on the device may use; 0 where it is free. Budgets, not facts: they need no source.

    Attributes:
        latency_p95_ms: Time of one image.
        peak_rss_mib: Memory of the process.
        model_mib: Size of the file.
    """

    latency_p95_ms: float = 0.0
    peak_rss_mib: float = 0.0
    model_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """How edgecv reaches the device.

    Attributes:
        kind: ``none``, ``local`` (this machine) or ``ssh``.
        host: For ``ssh``: a host of the user's ssh configuration, or ``user@address``.
        python: The interpreter on the device; it needs numpy, Pillow and onnxruntime.
        folder: Where edgecv keeps its files there, relative to the home folder.
    """

    kind: str = "none"
    host: str = ""
    python: str = "python3"
    folder: str = ".cache/edgecv/device"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One device.

    Attributes:
        schema: Version of the file format.
        name: As on the command line; equals the file's name.
        title: For people.
        arch: ``x86_64``, ``aarch64`` or ``wasm32``.
        isa: Instruction sets, in the names of /proc/cpuinfo.
        providers: Short provider names, first choice first.
        threads: Intra-op threads; 0 means as many as the device has usable cores.
        onnxruntime: The oldest ONNX Runtime the device is expected to have; sets the opset and IR limits.
        sources: Where each fact comes from, as ``"fact, fact: where"``.
        cores: Physical cores; 0 when it depends on the machine.
        big_cores: Of them, those of the fastest kind; 0 where all are alike or it depends on the machine.
        little_cores: Of them, the others.
        clock_mhz: Highest clock; 0 when it depends on the machine.
        memory_mib: Main memory; 0 when it depends on the machine.
        power_w: What the board draws at most, in watts; 0 when it depends on the machine.
        simd_channels: float32 numbers in one vector register, so what channel counts should be multiples of; 0 where
            it is not known.
        opset_max: Highest ONNX opset it reads; 0 for what ``onnxruntime`` reads.
        ir_max: Highest IR version it reads; 0 for what ``onnxruntime`` reads.
        onnxruntime_newest: The newest ONNX Runtime it can have; empty where nothing is known to end.
        provider_options: Provider to its options.
        limits: Budgets of the application.
        connection: How edgecv reaches it.
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
    big_cores: int = 0
    little_cores: int = 0
    memory_mib: int = 0
    power_w: float = 0.0
    simd_channels: int = 0
    opset_max: int = 0
    ir_max: int = 0
    onnxruntime_newest: str = ""
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    limits: Limits = Limits()
    connection: ConnectionConfig = ConnectionConfig()
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
    _check_hardware(path, profile)
    for key, choices in INT8_CHOICES.items():
        if (value := getattr(profile.int8, key)) not in choices:
            hint = nearest(value, choices)
            raise UsageError(f"{path}: int8.{key} '{value}' is not one of {', '.join(choices)}.{hint}")
    return profile


def _check_hardware(path: Path, profile: DeviceProfile) -> None:
    kind = profile.connection.kind
    if kind not in CONNECTIONS:
        raise UsageError(
            f"{path}: connection.kind '{kind}' is not one of {', '.join(CONNECTIONS)}.{nearest(kind, CONNECTIONS)}"
        )
    if kind == "ssh" and not profile.connection.host:
        raise UsageError(f"{path}: connection.host is missing; name a host of your ssh configuration.")
    numbers = ("threads", "cores", "big_cores", "little_cores", "clock_mhz", "memory_mib", "power_w", "simd_channels",
               "opset_max", "ir_max")  # fmt: skip
    for key in numbers:
        if getattr(profile, key) < 0:
            raise UsageError(f"{path}: {key} is {getattr(profile, key)}; 0 stands for what is not known.")
    if profile.big_cores and profile.cores and profile.big_cores + profile.little_cores != profile.cores:
        raise UsageError(
            f"{path}: {profile.big_cores} big and {profile.little_cores} little cores are not {profile.cores}."
        )
    for name in profile.provider_options:
        if name not in profile.providers:
            hint = nearest(name, profile.providers)
            raise UsageError(f"{path}: provider_options names '{name}', which is not among the providers.{hint}")


def known_devices() -> list[DeviceProfile]:
    """Return every shipped profile, by name."""
    return [load_device(path.stem) for path in shipped_files("devices")]
