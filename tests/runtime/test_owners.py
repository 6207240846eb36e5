"""Who owns the module onnxruntime, told from fabricated installations."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from edgecv.errors import EnvironmentRefusedError
from edgecv.runtime import owners
from edgecv.runtime.owners import Owner, load_onnxruntime, mending_commands, onnxruntime_owners


def install(site: Path, name: str, version: str, files: tuple[str, ...] = ("onnxruntime/__init__.py",)) -> None:
    """Fabricate what pip leaves behind for a distribution."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text("".join(f"{f},sha256=abc,1\n" for f in (f"{name}/x.py", *files)))


def test_the_one_owner_is_found_and_plugins_are_none(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1")
    install(tmp_path, "onnxruntime-ep-openvino", "1.8.1", ("onnxruntime_ep_openvino/__init__.py",))
    install(tmp_path, "other", "1.0", ("vendored/onnxruntime/__init__.py",))
    assert onnxruntime_owners([str(tmp_path)]) == [Owner("onnxruntime", "1.31.1")]


def test_two_owners_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime_gpu", "1.31.1")
    install(tmp_path, "ort-nightly", "1.32.0.dev1")
    assert [o.name for o in onnxruntime_owners([str(tmp_path)])] == ["onnxruntime-gpu", "ort-nightly"]


def test_no_owner_in_an_empty_folder(tmp_path: Path) -> None:
    assert onnxruntime_owners([str(tmp_path)]) == []


@pytest.mark.parametrize(
    ("names", "nvidia", "extra"),
    [
        (("onnxruntime", "onnxruntime-gpu"), True, "gpu"),
        (("onnxruntime", "onnxruntime-gpu"), False, "cpu"),
        (("onnxruntime", "onnxruntime-openvino"), True, "cpu,openvino"),
        (("onnxruntime-gpu", "onnxruntime-openvino"), True, "gpu,openvino"),
        ((), False, "cpu"),
    ],
)
def test_mending_removes_all_owners_and_installs_one(names: tuple[str, ...], nvidia: bool, extra: str) -> None:
    uninstall, reinstall = mending_commands([Owner(n, "1") for n in names], nvidia=nvidia)
    assert uninstall == f"pip uninstall -y {' '.join(names) or 'onnxruntime'}"
    assert reinstall == f"pip install 'edgecv[{extra}]'"


def test_missing_onnxruntime_is_one_sentence_with_the_install_line(tmp_path: Path) -> None:
    """In an interpreter that has numpy and Pillow but no ONNX Runtime."""
    code = (
        "import sys, importlib.metadata as m; sys.modules['onnxruntime'] = None\n"
        "from edgecv.runtime import owners; owners.onnxruntime_owners = lambda: []\n"
        "from edgecv.runtime import Model\n"
        "from edgecv.errors import EnvironmentRefusedError\n"
        "try: Model.load('model.onnx')\n"
        "except EnvironmentRefusedError as e: print(e, e.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == (
        "ONNX Runtime is not installed; install it with: pip install 'edgecv[cpu]' "
        "(or, with an NVIDIA GPU, 'edgecv[gpu]'). 3"
    )


def test_empty_module_without_an_owner_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    monkeypatch.setattr(owners, "onnxruntime_owners", list)
    with pytest.raises(EnvironmentRefusedError, match=r"^ONNX Runtime is not installed; install it with"):
        load_onnxruntime()


def test_module_left_empty_by_a_removed_owner_is_refused_with_the_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(
        EnvironmentRefusedError, match=r"does not load \(its files are gone\).*pip uninstall -y onnx.*&& pip install"
    ):
        load_onnxruntime()
