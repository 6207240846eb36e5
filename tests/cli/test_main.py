import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.cli import main as cli
from edgecv.errors import EXIT_BUG


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (*cli.COMMANDS, *cli.GROUPS):
        assert name in text


@pytest.mark.parametrize(
    "command", [*([c] for c in cli.COMMANDS), *([g, c] for g in cli.GROUPS for c in cli.GROUPS[g][1])]
)
def test_every_command_has_help_and_the_common_options(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.split("\n\n")[1].strip()) > 20, "a sentence on what the command does"
    for option in ("--json", "--quiet", "--debug"):
        assert option in text


def test_the_version_comes_from_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    import edgecv

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == edgecv.__version__


def test_a_bug_is_one_line_and_exit_70_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(cli, "build_app", lambda: lambda **_: broken())
    assert cli.main([]) == EXIT_BUG
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "RuntimeError" in err
    with pytest.raises(RuntimeError):
        cli.main(["--debug"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_exit_130_one_line_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    build_tiny_model(tmp_path / "tiny.onnx")
    write_color_folder(tmp_path / "data", per_class=400, size=256)
    before = set(tmp_path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecv", "quantize", "tiny.onnx", "--int8", "--data", "data", "-n", "1200"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # work has begun
    time.sleep(0.2)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 130, first + rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert set(tmp_path.rglob("*")) == before


def test_nothing_is_written_into_the_users_home(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"from edgecv.runtime import Model; Model.load({str(model)!r}).close()"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(home.rglob("*")) == []
