"""edgecv devices as a user runs it."""

import json
from pathlib import Path

import pytest

from edgecv.cli.main import main


def test_every_profile_is_listed_with_the_state_of_the_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["devices", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"x86-vnni", "x86-avx2", "rpi5", "cuda-generic"} <= {d["name"] for d in found["devices"]}
    assert found["emulated"]["ready"] is False
    assert main(["devices", "list"]) == 0
    out = capsys.readouterr().out
    assert "x86-avx2" in out
    assert "next:     edgecv devices setup qemu-x86" in out


def test_a_profile_is_shown_with_sources_and_what_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "cuda-generic"]) == 0
    out = capsys.readouterr().out
    for text in ("int8.activations", "int8.weights_range", "not measured on the device", "source: "):
        assert text in out
    assert main(["devices", "show", "rpi5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["int8"]["weights_range"] == "full"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "rpi6"], 2, "Did you mean 'rpi5'"),
        (["show", "qemu-x86:Haswell"], 2, "edgecv verify --data DIR --device qemu-x86:Haswell"),
        (["setup", "rpi5"], 2, "only 'qemu-x86' does"),
        (["setup", "qemu-x86"], 3, "'apt-get' is not on this machine"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["devices", *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_this_machine_is_probed_and_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["devices", "probe", "-o", "mine.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifact"] == "mine.toml"
    assert main(["devices", "probe", "-o", "mine.toml"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["devices", "probe", "-o", "mine.json"]) == 2
    capsys.readouterr()
    assert main(["devices", "check", "mine.toml"]) == 0
    assert "agrees with this machine" in capsys.readouterr().out


def test_a_profile_of_another_machine_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "check", "web-wasm", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"].startswith("this machine is not as 'web-wasm' says: arch, isa")


def test_tables_of_a_profile_are_shown_key_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "apple-m"]) == 0
    assert "provider_options.coreml.ModelFormat" in capsys.readouterr().out
    assert main(["devices", "show", "rpi4"]) == 0
    out = capsys.readouterr().out
    assert "connection.host" in out
    assert "limits" not in out
