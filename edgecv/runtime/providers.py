"""ONNX Runtime's execution providers by short name: what each is called, needs, and how it is installed."""

import importlib
import importlib.util
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecv.errors import EnvironmentRefusedError, UsageError, nearest
from edgecv.runtime.owners import Owner, mending_commands, onnxruntime_owners


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider.

    Attributes:
        ort_name: ONNX Runtime's name of it.
        install: How to get it, to follow "get it with".
        needs: What must be on the machine besides the package.
        options: Options it is given unless the caller says otherwise.
        plugin: Module of the package that brings it as a plugin library, to add to any ONNX Runtime.
        concurrent: One session may be run by several threads at once.
    """

    ort_name: str
    install: str
    needs: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    concurrent: bool = False


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", "pip install 'edgecv[cpu]'", concurrent=True),
    "cuda": Provider(
        "CUDAExecutionProvider",
        "pip install 'edgecv[gpu]'",
        needs="an NVIDIA GPU with its driver, CUDA and cuDNN (pip install 'onnxruntime-gpu[cuda,cudnn]')",
        concurrent=True,
    ),
    "trt": Provider(
        "TensorrtExecutionProvider",
        "pip install 'edgecv[gpu]'",
        needs="an NVIDIA GPU with its driver, CUDA, cuDNN and TensorRT 10 (pip install tensorrt)",
        concurrent=True,
    ),
    "trt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install 'edgecv[trt-rtx]'",
        needs="an NVIDIA RTX GPU with its driver",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        "pip install 'edgecv[openvino]'",
        needs="a CPU, GPU or NPU by Intel",
        plugin="onnxruntime_ep_openvino",
    ),
    "xnnpack": Provider("XnnpackExecutionProvider", "an ONNX Runtime built with --use_xnnpack"),
    # MLProgram covers more operators than the default NeuralNetwork (onnxruntime.ai, CoreML execution provider).
    "coreml": Provider(
        "CoreMLExecutionProvider",
        "pip install 'edgecv[cpu]' on macOS",
        options={"ModelFormat": "MLProgram"},
    ),
    # Without a backend the plugin is listed but takes no node (onnxruntime-qnn 2.7.0).
    "qnn": Provider(
        "QNNExecutionProvider",
        "pip install 'edgecv[qnn]'",
        needs="a Qualcomm NPU and a model of fixed batch (on x86 its emulation runs)",
        options={"backend_type": "htp"},
        plugin="onnxruntime_qnn",
    ),
    "dml": Provider(
        "DmlExecutionProvider", "onnxruntime-directml in place of onnxruntime, on Windows", needs="a DirectX 12 GPU"
    ),
    "webgpu": Provider(
        "WebGpuExecutionProvider",
        "pip install 'edgecv[webgpu]'",
        needs="a GPU with a Vulkan, Metal or DirectX 12 driver",
        plugin="onnxruntime_ep_webgpu",
    ),
    "acl": Provider("ACLExecutionProvider", "an ONNX Runtime built with --use_acl on aarch64"),
    "migraphx": Provider(
        "MIGraphXExecutionProvider", "onnxruntime-migraphx in place of onnxruntime", needs="an AMD GPU with ROCm"
    ),
}
"""Every provider edgecv knows, by the short name users type."""

_ARM_ALIAS = "arm"
_registering = threading.Lock()
_registered: set[str] = set()


def parse_providers(text: str) -> tuple[str, ...]:
    """Split ``"cuda,cpu"`` into known short names, in order.

    ``arm`` is another name of ``cpu`` on an aarch64 machine.

    Raises:
        UsageError: Not a string, empty, unknown (the nearest name is shown) or named twice.
        EnvironmentRefusedError: ``arm`` on a machine that is not aarch64.
    """
    if not isinstance(text, str):
        raise UsageError(f"a provider must be a string such as 'cpu' or 'cuda,cpu', not {text!r}.")
    names = []
    for name in (part.strip().lower() for part in text.split(",")):
        if name == _ARM_ALIAS:
            if platform.machine() not in ("aarch64", "arm64"):
                raise EnvironmentRefusedError(
                    f"provider 'arm' is the CPU of an aarch64 machine and this one is {platform.machine()}; "
                    "use --provider cpu here."
                )
            name = "cpu"
        if name not in PROVIDERS:
            hint = nearest(name, PROVIDERS) or f" Known: {', '.join(PROVIDERS)}."
            raise UsageError(f"unknown provider '{name}'.{hint}")
        if name in names:
            raise UsageError(f"provider '{name}' is named twice in '{text}'; name it once.")
        names.append(name)
    return tuple(names)


def is_plugin(name: str, available: Sequence[str]) -> bool:
    """Return whether ``name`` comes from an installed plugin package rather than from ONNX Runtime itself."""
    if name in _registered:  # ONNX Runtime lists a plugin as its own once it is registered
        return True
    provider = PROVIDERS[name]
    return provider.ort_name not in available and bool(provider.plugin and importlib.util.find_spec(provider.plugin))


def check_installed(ort: Any, name: str) -> None:
    """Check that the installed ONNX Runtime, or a plugin package, holds a provider at all.

    Raises:
        EnvironmentRefusedError: It does not; the message says what is installed and how to get the provider.
    """
    available = ort.get_available_providers()
    provider = PROVIDERS[name]
    if provider.ort_name in available or is_plugin(name, available):
        return
    owners = onnxruntime_owners()
    installed = " and ".join(f"{o.name} {o.version}" for o in owners) or f"onnxruntime {ort.__version__}"
    known = ", ".join(n for n, p in PROVIDERS.items() if p.ort_name in available)
    needs = f" (it needs {provider.needs})" if provider.needs else ""
    raise EnvironmentRefusedError(
        f"provider '{name}' is not in the installed {installed}, which has: {known}; "
        f"get it with: {install_line(name, owners)}{needs}."
    )


def install_line(name: str, owners: Sequence[Owner]) -> str:
    """Return how to get a provider where ``owners`` own ONNX Runtime now, never leading to two of them."""
    install = PROVIDERS[name].install
    if owners and "edgecv[gpu]" in install:
        return f"pip uninstall -y {' '.join(o.name for o in owners)} && {install}"
    if len(owners) > 1:
        return " && ".join((*mending_commands(owners), install))
    return install


def plugin_devices(ort: Any, name: str) -> list[Any]:
    """Register a plugin provider's library once and return the devices it offers on this machine.

    Raises:
        EnvironmentRefusedError: The ONNX Runtime is too old for plugins, the library does not load, or no
            device of its kind is in this machine.
    """
    provider = PROVIDERS[name]
    if not hasattr(ort, "register_execution_provider_library"):
        raise EnvironmentRefusedError(
            f"provider '{name}' is a plugin and onnxruntime {ort.__version__} takes none; update onnxruntime."
        )
    with _registering:
        if name not in _registered:
            # Registered under ONNX Runtime's own name: the QNN plugin takes the registration's name as its own.
            library = importlib.import_module(provider.plugin).get_library_path()
            try:
                ort.register_execution_provider_library(provider.ort_name, str(library))
            except Exception as e:  # onnxruntime's exceptions have no common base but this
                raise EnvironmentRefusedError(f"provider '{name}' does not load: {e}") from e
            _registered.add(name)
    devices = [d for d in ort.get_ep_devices() if d.ep_name == provider.ort_name]
    if not devices:
        raise EnvironmentRefusedError(
            f"provider '{name}' finds no device of its kind in this machine; it needs {provider.needs}."
        )
    return devices
