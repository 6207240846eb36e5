import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model

from edgecv.benchmark.plan import PRESETS, Preset
from edgecv.benchmark.statistics import MIN_TURNS
from edgecv.cli.main import main
from edgecv.files import sha256_file
from edgecv.workspace import set_current_model

BRIEF = Preset("rapid", min_queries=20, min_seconds=0.02, max_seconds=5, min_turns=MIN_TURNS, turn_ms=1, min_runs=2,
               max_warm_up_seconds=0.2)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, and a preset that takes no time."""
    monkeypatch.setitem(PRESETS, "rapid", BRIEF)
    place = tmp_path / "workspace"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def model(folder: Path) -> Path:
    return build_tiny_model(folder / "model.onnx")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith(("loading", "warming", "timing"))]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


def test_table_verdict_artifact_and_next_command_are_printed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = build_tiny_model(model.with_name("other.onnx"), noise=0.1)
    assert main(["bench", str(model), str(other), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for column in ("p50 ms", "p90 ms", "images/s", "ratio", "load ms", "first run ms", "peak RSS MiB", "size MB"):
        assert column in out
    last = out.splitlines()[-3:]
    assert last[0].startswith("verdict:")
    assert "other.onnx" in last[0]
    artifact = Path(last[1].split()[1])
    assert artifact.parts[:2] == (".edgecv", "bench")
    assert json.loads(artifact.read_text())["kind"] == "bench"
    assert last[2].startswith("next:     edgecv compare")


def test_json_holds_everything(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), "--batch", "1,2", "--threads", "1,2", "--json", "--seed", "5"]) == 0
    result = printed(capsys)
    assert [(r["batch"], r["threads"]) for r in result["results"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert result["seed"] == result["host"]["seed"] == 5
    assert result["host"]["cpu"]
    assert Path(result["artifact"]).is_file()
    assert result["noise"]["seconds"] > 0


def test_no_model_means_the_current_one_against_the_one_it_was_made_from(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = {"file": model.name, "sha256": sha256_file(model)}
    build_tiny_model(model.with_name("model.int8.onnx"), noise=0.1, made_from=origin)
    set_current_model(model.with_name("model.int8.onnx"))
    assert main(["bench", "--json", "--threads", "1"]) == 0
    result = printed(capsys)
    assert [Path(r["model"]).name for r in result["results"]] == ["model.onnx", "model.int8.onnx"]
    assert "model.onnx, model.int8.onnx" in result["notes"][0]


def test_origin_that_was_changed_is_left_out_and_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tiny_model(model.with_name("model.int8.onnx"), made_from={"file": model.name, "sha256": "0" * 64})
    set_current_model(model.with_name("model.int8.onnx"))
    assert main(["bench", "--json", "--threads", "1"]) == 0
    result = printed(capsys)
    assert [Path(r["model"]).name for r in result["results"]] == ["model.int8.onnx"]
    assert "is not the file it was made from" in result["notes"][0]


def test_manifest_cannot_name_an_origin_outside_its_folder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = build_tiny_model(model.parent.parent / "outside.onnx")
    build_tiny_model(model, noise=0.1, made_from={"file": "../outside.onnx", "sha256": sha256_file(outside)})
    set_current_model(model)
    assert main(["bench", "--json", "--threads", "1"]) == 0
    assert len(printed(capsys)["results"]) == 1


def test_no_current_model_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "no current model" in one_error_line(capsys)


def test_cuda_that_is_not_here_ends_with_exit_3_and_names_what_is_missing(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    assert main(["bench", str(model), "--provider", "cuda"]) == 3
    line = one_error_line(capsys)
    assert "'cuda' is not in the installed onnxruntime" in line
    assert "edgecv[gpu]" in line
    assert list(Path().rglob("*.json")) == []


def test_several_providers_and_policies_may_be_given(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(model), "--provider", "cpu", "--provider", "cuda,cpu", "--threads", "1", "--json"]
    assert main(command) == 0
    assert [r["provider"] for r in printed(capsys)["results"]] == ["cpu", "cuda,cpu"]


def test_profile_prints_operators_and_layers(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), "--profile", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "by operator" in out
    assert "slowest layers" in out
    assert "CPUExecutionProvider" in out
    assert not list(Path().rglob("onnxruntime_profile*"))


def test_photographs_give_a_decode_to_label_figure(
    model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(model), "--data", str(color_folder), "--threads", "1"]) == 0
    assert "decode → label" in capsys.readouterr().out


def test_output_goes_where_it_is_told_and_is_not_replaced_without_force(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(model), "--threads", "1", "-o", "result.json", "-q"]
    assert main(command) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    first = (folder / "result.json").read_bytes()
    assert main(command) == 2
    assert "--force" in one_error_line(capsys)
    assert (folder / "result.json").read_bytes() == first
    assert main([*command, "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.onnx"], "does not exist"),
        (["."], "is a folder"),
        (["empty.onnx"], "is empty"),
        (["random.onnx"], "not an ONNX file"),
        (["truncated.onnx"], "not an ONNX file"),
        (["model.onnx", "--preset", "quik"], "Did you mean 'quick'"),
        (["model.onnx", "--provider", "cdua"], "Did you mean 'cuda'"),
        (["model.onnx", "--batch", "0"], "--batch '0'"),
        (["model.onnx", "--batch", "1,,2"], "empty part"),
        (["model.onnx", "--threads", "many"], "neither auto nor a number"),
        (["model.onnx", "--data", "no-images"], "holds no images"),
        (["model.onnx", "-o", "missing/result.json"], "does not exist"),
        (["model.onnx", "-o", "model.onnx", "--force"], "is an input"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (folder / "empty.onnx").touch()
    (folder / "random.onnx").write_bytes(os.urandom(5000))
    (folder / "truncated.onnx").write_bytes(model.read_bytes()[:2500])
    (folder / "no-images").mkdir()
    assert main(["bench", *arguments]) == 2
    assert words in one_error_line(capsys)
    assert not (folder / ".edgecv").exists()


def test_fifo_does_not_hang(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(folder / "fifo.onnx")
    assert main(["bench", "fifo.onnx"]) == 2
    assert "not a regular file" in one_error_line(capsys)


def test_report_that_nobody_asked_to_keep_does_not_fail_the_command(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".edgecv").write_text("in the way")
    assert main(["bench", str(model), "--threads", "1"]) == 0
    assert "was not kept" in capsys.readouterr().out


def test_interrupt_ends_every_worker_and_leaves_no_file(model: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "edgecv", "bench", str(model), str(model), "--preset", "official", "-o", "r.json"]
    # A process started from a script may inherit an ignored SIGINT; a terminal's never does.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("timing"):
                break
        children = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        workers = [int(x.split()[0]) for x in children.splitlines()[1:] if x.split()[1] == str(process.pid)]
        assert len(workers) == 2
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    time.sleep(0.2)
    assert not any(
        Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers
    )
    assert not list(folder.glob("*.json"))


def test_foreign_current_model_is_timed_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_current_model(build_tiny_model(folder / "foreign.onnx", with_manifest=False))
    assert main(["bench", "--json", "--threads", "1"]) == 0
    assert len(printed(capsys)["results"]) == 1


def test_model_fixed_to_another_batch_names_the_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    path = build_tiny_model(folder / "fixed.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    assert main(["bench", str(path)]) == 2
    assert "--batch 4" in one_error_line(capsys)


def set_bias(path: Path, value: float) -> Path:
    built = onnx.load(path)
    for tensor in built.graph.initializer:
        if tensor.name == "head.bias":
            tensor.raw_data = np.full(3, value, np.float32).tobytes()
    onnx.save(built, path)
    return path


@pytest.mark.usefixtures("trusted_models")
def test_outputs_that_are_not_finite_are_in_the_verdict(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = set_bias(build_tiny_model(model.with_name("bad.onnx")), np.nan)
    for models, end in (([bad], "bad.onnx"), ([model, bad], "bad.onnx"), ([model], "")):
        assert main(["bench", *map(str, models), "--threads", "1", "--json"]) == 0
        verdict = printed(capsys)["verdict"]
        assert ("not finite (NaN or Inf)" in verdict) == bool(end), verdict
        assert verdict.endswith(end)


def test_graph_that_is_not_what_its_manifest_says_is_not_timed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = onnx.load(model)
    built.graph.input.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    onnx.save(built, model)
    assert main(["bench", str(model), "--threads", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1  # no progress before it either
    assert "its manifest says image: uint8" in captured.err


def test_bench_runs_with_its_streams_closed(model: Path) -> None:
    code = "import sys; from edgecv.benchmark.child import Child; from edgecv.benchmark.plan import Candidate\n"
    code += "job = dict(model=sys.argv[1], provider='cpu', batch=1, threads='1', seed=0)\n"
    code += "from pathlib import Path; child = Child(Candidate(Path(sys.argv[1])), job)\n"
    code += "sys.exit(40 + child.facts['threads'])\n"
    command = f'exec "{sys.executable}" -c "{code}" "{model}" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command]).returncode == 41


def test_model_whose_name_is_not_unicode_is_timed_and_the_report_can_be_read(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = model.rename(model.with_name("half\udcff.onnx"))
    assert main(["bench", str(odd), "--threads", "1", "-o", "a.json"]) == 0
    assert "half\\udcff.onnx takes" in capsys.readouterr().out
    assert main(["compare", "a.json", "a.json", "--json"]) == 0
    assert printed(capsys)["changes"][0]["before"].startswith("half\udcff.onnx")


def _reachable(tmp_path: Path, text: str = 'kind = "local"') -> Path:
    profile = tmp_path / "near.toml"
    profile.write_text(
        'schema = 1\nname = "near"\ntitle = "Near"\narch = "x86_64"\nisa = []\nproviders = ["cpu"]\nthreads = 1\n'
        f'onnxruntime = "1.22"\nsources = []\n[connection]\n{text}\nfolder = "{tmp_path / "device"}"\n'
    )
    return profile


@pytest.mark.slow
def test_a_device_of_the_users_own_is_timed_where_it_is(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", str(tiny_model), "--device", str(_reachable(tmp_path)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results"][0]["model"] == str(tiny_model)
    assert found["results"][0]["threads"] == 1
    assert any("measured on 'near' by way of local" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "x86-vnni"], 5, "says no way to reach the device"),
        (["--device", "rpi9"], 2, "no device 'rpi9'"),
    ],
)
def test_a_device_that_cannot_be_timed_is_one_sentence(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["bench", str(tiny_model), *arguments, "-q"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
