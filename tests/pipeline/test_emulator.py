"""Older x86 CPUs emulated on this machine: setting up, running, and what goes wrong."""

import json
import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from conftest import needs_emulator
from small_graphs import small_model

from edgecv.errors import DeviceUnreachableError, EdgecvError, EnvironmentRefusedError, UsageError
from edgecv.pipeline import emulator as module
from edgecv.pipeline.emulated_run import run_emulated
from edgecv.pipeline.emulator import Emulator, check_cpu, find_emulator, parse_device
from edgecv.pipeline.emulator_setup import set_up_emulator
from edgecv.runtime.host import cpu_flags

WHITE = np.ones((1, 3, 12, 12), np.float32)


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No emulator in the cache and none on the PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def packages(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian's tools, with one package: an emulator that tells its version."""
    tools = empty_cache / "bin"
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    script(tools / "apt-cache", 'echo "  Depends: libc6"; test "$2" = qemu-user && echo "  Depends: libextra1"')
    script(tools / "dpkg-query", 'test "$4" = libc6 && echo installed')
    script(tools / "apt-get", 'shift 2; for p in "$@"; do echo "$p" > "${p}_1%3a7.2_amd64.deb"; done')
    script(
        tools / "dpkg-deb",
        "mkdir -p root/usr/bin root/usr/lib/x; echo lib > root/usr/lib/x/libextra.so.1\n"
        "printf '#!/bin/sh\\necho qemu-x86_64 version 7.2.22\\n' > root/usr/bin/qemu-x86_64\n"
        "chmod 755 root/usr/bin/qemu-x86_64",
    )
    return empty_cache


def saturating_model(path: Path, code: int) -> Path:
    """A 1x1 convolution with two neighbouring weights of ``code``, between quantizers."""
    body = """
        q = QuantizeLinear(image, s, z)
        x = DequantizeLinear(q, s, z)
        w = DequantizeLinear(codes, one)
        c = Conv(x, w)
        cq = QuantizeLinear(c, sc, z)
        cd = DequantizeLinear(cq, sc, z)
        g = GlobalAveragePool(cd)
        y = Flatten(g)
    """
    codes = np.zeros((8, 3, 1, 1), np.int8)
    codes[:, :2] = code
    values = {"s": np.array(1 / 255, np.float32), "z": np.array(0, np.uint8), "one": np.array(1, np.float32)}
    model = small_model(body, values | {"sc": np.array(1, np.float32), "codes": codes})
    ir.save(model, path)
    return path


@needs_emulator
def test_two_large_neighbours_saturate_without_vnni_and_two_at_the_limit_do_not(tmp_path: Path) -> None:
    answers = {}
    for code in (127, 64):
        path = saturating_model(tmp_path / f"{code}.onnx", code)
        found = run_emulated(find_emulator(), "Haswell", path, ("image", "y"), [WHITE, WHITE])
        answers[code] = [float(a[0, 0]) for a in found]
    assert answers[127] == [128, 128]  # 32,767 where the sum is 64,770, in units of 255
    assert answers[64] == [128, 128]
    native = ort.InferenceSession(tmp_path / "127.onnx", providers=["CPUExecutionProvider"])
    if {"avx512_vnni", "avx_vnni"} & set(cpu_flags()):
        assert float(native.run(None, {"image": WHITE})[0][0, 0]) == 254


@needs_emulator
def test_a_model_that_does_not_load_there_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(UsageError, match="on qemu-x86:Haswell: "):
        list(run_emulated(find_emulator(), "Haswell", path, ("image", "y"), [WHITE]))


@needs_emulator
def test_an_unknown_cpu_is_refused_with_the_nearest() -> None:
    check_cpu(find_emulator(), "Haswell")
    with pytest.raises(UsageError, match="Did you mean 'Haswell'"):
        check_cpu(find_emulator(), "Haswel")


@pytest.mark.parametrize(("body", "message"), [
    ("kill -ILL $$", "lacks instructions"),
    ("echo broken pipes >&2; exit 3", "ended with code 3: broken pipes"),
])  # fmt: skip
def test_a_process_that_dies_is_one_sentence(tmp_path: Path, body: str, message: str) -> None:
    program = script(tmp_path / "qemu", body)
    dead = Emulator(str(program), "", "1", "")
    model = saturating_model(tmp_path / "m.onnx", 1)
    with pytest.raises(DeviceUnreachableError, match=message) as caught:
        list(run_emulated(dead, "Haswell", model, ("image", "y"), [WHITE]))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["haswell", "qemu-x86", "qemu-x86:", "qemu-x86:-cpu", "qemu-x86:a b", "qemu-arm:max"])
def test_what_names_no_emulated_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="qemu-x86:Haswell"):
        parse_device(text)


def test_without_an_emulator_the_message_says_how_to_get_one(empty_cache: Path) -> None:
    with pytest.raises(DeviceUnreachableError, match="run: edgecv devices setup qemu-x86"):
        find_emulator()


def test_without_debians_tools_setup_is_refused(empty_cache: Path) -> None:
    with pytest.raises(EnvironmentRefusedError, match="'apt-get' is not on this machine") as caught:
        set_up_emulator()
    assert caught.value.exit_code == 3
    assert not (empty_cache / "cache").exists()


def test_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    with pytest.raises(EnvironmentRefusedError, match="aarch64"):
        find_emulator()


def test_setup_keeps_the_program_its_libraries_and_their_checksums(packages: Path) -> None:
    emulator, fetched = set_up_emulator()
    assert fetched
    assert emulator.version == "7.2.22"
    assert [p.name for p in Path(emulator.libraries).iterdir()] == ["libextra.so.1"]
    folder = packages / "cache" / "edgecv" / "qemu-x86"
    assert sorted(p.name for p in folder.iterdir()) == ["emulator.json", "root"]
    record = json.loads((folder / "emulator.json").read_text())
    assert [(p["name"], p["version"]) for p in record["packages"]] == [("libextra1", "1:7.2"), ("qemu-user", "1:7.2")]
    assert all(len(p["sha256"]) == 64 for p in record["packages"])
    assert find_emulator() == emulator
    assert set_up_emulator() == (emulator, False)
    assert set_up_emulator(force=True) == (emulator, True)


def test_a_program_that_changed_since_is_not_run(packages: Path) -> None:
    emulator, _ = set_up_emulator()
    script(Path(emulator.program), "echo something else")
    with pytest.raises(DeviceUnreachableError, match="was changed since"):
        find_emulator()


def test_a_damaged_record_is_one_sentence(packages: Path) -> None:
    set_up_emulator()
    (packages / "cache" / "edgecv" / "qemu-x86" / "emulator.json").write_text("{}")
    with pytest.raises(DeviceUnreachableError, match="damaged"):
        find_emulator()


@pytest.mark.parametrize(("tool", "body"), [
    ("apt-get", 'echo "E: Unable to locate package qemu-user" >&2; exit 100'),
    ("dpkg-deb", "mkdir -p root"),
])  # fmt: skip
def test_a_package_that_cannot_be_had_leaves_nothing_behind(packages: Path, tool: str, body: str) -> None:
    script(packages / "bin" / tool, body)
    with pytest.raises(EdgecvError, match="qemu-user") as caught:
        set_up_emulator()
    assert caught.value.exit_code == 3
    assert list((packages / "cache" / "edgecv" / "qemu-x86").iterdir()) == []
