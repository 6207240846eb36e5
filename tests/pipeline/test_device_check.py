"""One file on two CPUs: bit-equal when it is portable, and found out when it is not."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import needs_emulator, tiny_manifest
from PIL import Image

from edgecv.cli.main import main
from edgecv.config.device import FULL_RANGE, PORTABLE
from edgecv.graph.model_file import load_model, save_model
from edgecv.graph.values import constant_array
from edgecv.pipeline import device_check
from edgecv.pipeline.emulator import Emulator
from edgecv.quantize.static import quantize_static
from edgecv.runtime.host import cpu_flags

PIXELS = np.random.default_rng(0).integers(170, 256, (8, 32, 32, 3)).astype(np.uint8)
"""Bright, so that products are large; calibrated on and judged."""


def loud(path: Path) -> Path:
    """Give every convolution small weights of one sign and size: each pair of neighbours can saturate."""
    model = load_model(path)
    for node in model.graph:
        if node.op_type == "Conv":
            weight = constant_array(node.inputs[1])
            assert weight is not None
            value = node.inputs[1]
            assert value is not None
            share = np.abs(weight) / np.abs(weight).max()
            value.const_value = ir.tensor((0.018 + 0.002 * share).astype(np.float32), name=value.name)
    save_model(model, path)
    return path


def quantized(path: Path, *, portable: bool) -> Path:
    found = quantize_static(
        load_model(path), tiny_manifest(), lambda: iter([PIXELS]), scheme=PORTABLE if portable else FULL_RANGE
    )
    output = path.with_name(f"portable-{portable}.onnx")
    save_model(found.model, output, tiny_manifest())
    return output


@needs_emulator
def test_a_portable_file_is_bit_equal_without_vnni_and_another_is_not(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not {"avx512_vnni", "avx_vnni"} & set(cpu_flags()):
        pytest.skip("this CPU has no VNNI: it saturates just as the emulated one does")
    loud(tiny_model)
    for number, pixels in enumerate(PIXELS):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    equal = {}
    for portable in (True, False):
        candidate = quantized(tiny_model, portable=portable)
        arguments = ["--data", str(tmp_path / "images"), "--device", "qemu-x86:Haswell", "-n", "6", "--json"]
        main(["verify", str(tiny_model), str(candidate), *arguments])
        found = json.loads(capsys.readouterr().out)["device"]
        assert found["n"] == 6
        assert found["emulator"].startswith("qemu ")
        assert (found["max_abs_diff"] == 0) is found["bit_equal"]
        assert (found["images_different"] == 0) is found["bit_equal"]
        equal[portable] = found["bit_equal"]
    assert equal == {True: True, False: False}


def answers(monkeypatch: pytest.MonkeyPatch, change: float) -> None:
    """Let the emulated device answer like this machine, with ``change`` added to one class."""
    from edgecv.runtime.session import open_session

    monkeypatch.setattr(device_check, "check_device", lambda device: (Emulator("qemu", "", "7.2", ""), "Haswell"))

    def run(emulator, cpu, model, names, batches, progress):  # type: ignore[no-untyped-def]
        session = open_session(model, provider="cpu", threads=1).session
        for batch in batches:
            output = session.run([names[1]], {names[0]: batch})[0]
            output[:, 0] += change
            yield output

    monkeypatch.setattr(device_check, "run_emulated", run)


def test_equal_answers_leave_the_verdict_alone(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, 0.0)
    arguments = ["verify", str(tiny_model), str(tiny_model), "--data", str(color_folder), "--max-drop", "30"]
    assert main([*arguments, "--device", "qemu-x86:Haswell"]) == 0
    assert "qemu-x86:Haswell: bit-equal on 18 images" in capsys.readouterr().out


def test_other_answers_are_judged_by_themselves_and_fail(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, 1e4)
    arguments = ["verify", str(tiny_model), str(tiny_model), "--data", str(color_folder), "--max-drop", "30"]
    assert main([*arguments, "--device", "qemu-x86:Haswell"]) == 1
    out = capsys.readouterr().out
    assert "verdict:  PASS" in out
    assert "answers differ on 18 of 18 images, FAIL there" in out


def test_images_are_limited_unless_told_otherwise(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, 0.0)
    monkeypatch.setattr(device_check, "DEFAULT_IMAGES", 5)
    monkeypatch.setattr(device_check, "_AT_ONCE", 4)
    check = device_check.verify_on_device
    found = check(tiny_model, tiny_model, color_folder, "qemu-x86:Haswell", batch_size=2)
    assert (found.n, found.bit_equal, found.agreement_there) == (5, True, 1.0)
    assert check(tiny_model, tiny_model, color_folder, "qemu-x86:Haswell", batch_size=2, limit=7).n == 7


def test_an_unknown_device_is_refused_before_anything_runs(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", str(tiny_model), str(tiny_model), "--data", str(tmp_path / "none")]
    assert main([*arguments, "--device", "rpi5"]) == 2
    assert "name one such as qemu-x86:Haswell" in capsys.readouterr().err
