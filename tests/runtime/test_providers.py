"""Names of providers, and what is said of one that is not installed."""

import platform
import types
from pathlib import Path

import pytest

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.runtime import providers
from edgecv.runtime.owners import Owner
from edgecv.runtime.providers import PROVIDERS, check_installed, install_line, parse_providers, plugin_devices


def test_order_is_kept_and_case_and_spaces_are_not() -> None:
    assert parse_providers("CUDA, cpu") == ("cuda", "cpu")


def test_unknown_name_shows_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown provider 'cudda'\. Did you mean 'cuda'\?"):
        parse_providers("cudda")
    with pytest.raises(UsageError, match=r"unknown provider 'xyz'\. Known: cpu, cuda"):
        parse_providers("xyz")
    with pytest.raises(UsageError, match="unknown provider ''"):
        parse_providers("")


def test_a_name_may_come_once() -> None:
    with pytest.raises(UsageError, match="'cpu' is named twice in 'cpu,cuda,cpu'"):
        parse_providers("cpu,cuda,cpu")


def test_arm_is_the_cpu_of_an_aarch64_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert parse_providers("arm") == ("cpu",)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(EnvironmentRefusedError, match=r"aarch64 machine and this one is x86_64; use --provider cpu"):
        parse_providers("arm")


def test_short_names_of_the_design_are_all_there() -> None:
    wanted = ["cpu", "cuda", "trt", "openvino", "xnnpack", "coreml", "qnn", "dml", "webgpu", "acl", "migraphx"]
    assert set(wanted) <= set(PROVIDERS)
    assert len({p.ort_name for p in PROVIDERS.values()}) == len(PROVIDERS)


def test_onnxruntime_knows_every_name_it_is_given() -> None:
    import onnxruntime

    # Providers that only plugins bring are named by the plugin.
    named = {p.ort_name for p in PROVIDERS.values() if not p.plugin}
    assert named <= set(onnxruntime.get_all_providers())


def test_the_way_to_cuda_never_ends_with_two_owners() -> None:
    assert install_line("cuda", [Owner("onnxruntime", "1.31.1")]) == (
        "pip uninstall -y onnxruntime && pip install 'edgecv[gpu]'"
    )
    assert install_line("cuda", []) == "pip install 'edgecv[gpu]'"
    both = [Owner("onnxruntime", "1.31.1"), Owner("onnxruntime-gpu", "1.31.1")]
    assert install_line("cuda", both) == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'edgecv[gpu]'"
    mended = install_line("openvino", both)
    assert mended.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'edgecv[")
    assert mended.endswith("&& pip install 'edgecv[openvino]'")


def test_extras_named_in_messages_exist() -> None:
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for provider in PROVIDERS.values():
        if "edgecv[" in provider.install:
            assert provider.install.partition("edgecv[")[2].partition("]")[0] in extras


def fake_runtime(devices: tuple[str, ...] = (), error: str = "") -> types.SimpleNamespace:
    def register(name: str, library: str) -> None:
        if error:
            raise RuntimeError(error)

    return types.SimpleNamespace(
        __version__="1.31.1",
        get_available_providers=lambda: ["CPUExecutionProvider"],
        register_execution_provider_library=register,
        get_ep_devices=lambda: [types.SimpleNamespace(ep_name=d) for d in devices],
    )


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenVINO plugin package that is installed."""
    module = types.SimpleNamespace(get_library_path=lambda: "/plugin.so")
    monkeypatch.setattr(providers.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(providers, "_registered", set())


@pytest.mark.usefixtures("plugin")
def test_plugin_devices_are_those_of_its_own_name() -> None:
    runtime = fake_runtime(("CPUExecutionProvider", "OpenVINOExecutionProvider", "OpenVINOExecutionProvider"))
    check_installed(runtime, "openvino")
    assert len(plugin_devices(runtime, "openvino")) == 2


@pytest.mark.usefixtures("plugin")
def test_plugin_without_a_device_says_what_it_needs() -> None:
    with pytest.raises(EnvironmentRefusedError, match=r"'openvino' finds no device.*needs a CPU, GPU or NPU by Intel"):
        plugin_devices(fake_runtime(), "openvino")


@pytest.mark.usefixtures("plugin")
def test_plugin_that_does_not_load_names_the_library() -> None:
    with pytest.raises(EnvironmentRefusedError, match=r"'trt-rtx' does not load: libcuda\.so\.1"):
        plugin_devices(fake_runtime(error="libcuda.so.1: cannot open shared object file"), "trt-rtx")


def test_missing_provider_names_what_is_installed_and_what_to_type() -> None:
    with pytest.raises(
        EnvironmentRefusedError, match=r"'openvino' is not in the installed onnxruntime.* which has: cpu; get it"
    ):
        check_installed(fake_runtime(), "openvino")
