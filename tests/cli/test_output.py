"""What reaches stdout and stderr, whatever they are."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecv.cli import output
from edgecv.cli.output import emit, printable, progress_bar, say
from edgecv.errors import EnvironmentRefusedError

PROGRAM = r"""
import sys
from edgecv.cli.output import emit, open_closed_streams, progress_bar, say
from edgecv.errors import EdgecvError
open_closed_streams()
try:
    with progress_bar() as progress:
        progress("working", 0, 1)
    emit({"label": "caf\xe9 \u2013 \U0001f600"}, as_json="--json" in sys.argv,
         tables=[("\xb1", ("a", "b"), [("\xe9", "1 \xb12")])], notes=["\u2026"],
         verdict="caf\xe9 1\u20132 \u2192 \U0001f600")
except EdgecvError as e:
    say(f"error: {e}")
    sys.exit(e.exit_code)
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments: str, redirect: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_ascii_terminal_gets_signs_it_has() -> None:
    done = run(**ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[-1] == "verdict:  caf\\xe9 1-2 -> \\U0001f600"
    assert "1 +-2" in done.stdout


def test_json_is_json_on_an_ascii_terminal() -> None:
    done = run("--json", **ASCII)
    assert done.stdout.isascii()
    assert json.loads(done.stdout) == {"label": "café – \U0001f600"}


@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(redirect: str) -> None:
    done = run(redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_file_opened_while_stderr_is_closed_does_not_take_its_place(tmp_path: Path) -> None:
    code = (
        "import os; from edgecv.cli.output import open_closed_streams; open_closed_streams()\n"
        f"f = open({str(tmp_path / 'f')!r}, 'w'); os.write(2, b'a message'); os._exit(f.fileno())\n"
    )
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", code])
    assert done.returncode > 2
    assert (tmp_path / "f").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_full_disk_is_one_line_and_exit_3(arguments: list[str]) -> None:
    done = run(*arguments, redirect=">/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 3
    assert done.stderr == "error: cannot write to standard output: No space left on device.\n"


def test_a_reader_that_left_is_no_error_and_the_exit_code_stays_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        emit({}, as_json=True)
        assert os.path.samestat(os.fstat(writing), os.stat(os.devnull)), "what is still buffered has somewhere to go"


def test_error_of_writing_names_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(EnvironmentRefusedError, match="cannot write to standard output: Input/output error"):
        emit({}, as_json=False, verdict="good")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x7f\x9b31m", "\\x1b[2J\\x7f\\x9b31m"),
        ("\u202egnp.\u2066", "\\u202egnp.\\u2066"),
        ("half \udcff", "half \\udcff"),
        ("Kuchen, naïve, 猫, 👍🏽, a\u00a0b, می\u200cخواهم", "Kuchen, naïve, 猫, 👍🏽, a\u00a0b, می\u200cخواهم"),
    ],
)
def test_printable_escapes_what_steers_a_terminal_and_nothing_else(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("half", ["", "\udcff"])
@pytest.mark.parametrize("as_json", [False, True])
def test_no_control_character_comes_through_anywhere(
    as_json: bool, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = f"x\x1b[31m\x9b\u202e{half}\ny"
    emit(
        {"label": bad},
        as_json=as_json,
        tables=[(bad, ("name", "value"), [(bad, ":smile: [red]")])],
        notes=[bad],
        verdict=bad,
        artifact=Path(bad),
        next_command=bad,
    )
    out = capsys.readouterr().out
    for character in "\x1b\x9b\u202e\udcff":
        assert character not in out
    if as_json:
        assert json.loads(out) == {"label": bad}
    else:
        assert out.count(printable(bad)) == 6
        assert ":smile: [red]" in out  # a name is no markup


def test_a_message_is_one_line_and_needs_no_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say("a\nb \udcff")
    assert capsys.readouterr().err == "a\\nb \\udcff\n"
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears")
    with progress_bar() as progress:
        progress("working", 0, 1)


def test_short_work_tells_no_progress_and_long_work_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress_bar() as progress:
        progress("loading", 0, 1)
        progress("loading", 1, 1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "PLAIN_LINES_EVERY_S", 0.05)
    with progress_bar() as progress:
        progress("loading", 0, 1)
        for _ in range(100):
            time.sleep(0.05)
            if err := capsys.readouterr().err:
                break
    assert err == "loading: 0/1\n"


def test_json_holds_no_number_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"sqnr_db": float("inf"), "steps": [{"gain_db": float("nan")}, 1.5]}, as_json=True)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"sqnr_db": None, "steps": [{"gain_db": None}, 1.5]}
