import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_LABELS, write_color_folder

from edgecv.cli.main import main
from edgecv.nn.checkpoint import load_network, save_network
from edgecv.nn.models import build_untrained

TRAINING = ["--epochs", "1", "--batch", "8", "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_untrained("lenet5", num_classes=3, input_size=16)
    path = tmp_path_factory.mktemp("models") / "lenet.safetensors"
    save_network(path, replace(network, labels=tuple(sorted(TINY_LABELS))))
    return path


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_folder(tmp_path_factory.mktemp("data") / "colors", per_class=10, size=20)


def test_a_healed_factorization_reports_and_reloads(
    checkpoint: Path, colors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = ["factorize", str(checkpoint), "--to", "params=0.6", "--data", str(colors), "-o", str(folder)]
    assert main([*arguments, "--rank-multiple", "1", *TRAINING, "--no-bench", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0.5 < report["after"]["params"] / report["before"]["params"] <= 0.6
    assert report["after"]["macs"] < report["before"]["macs"]
    assert report["healed"]["seconds"] > 0
    assert None not in (report["before"]["top1"], report["after"]["top1"], report["unhealed_top1"])
    assert report["left_alone"]["classifier"] == "it gives the scores"
    assert report["host"]["seed"] == 0
    network = load_network(folder / "model.safetensors")
    assert network.structure[0]["step"] == "factorize"
    assert network.stages[-1]["name"] == "factorize"
    assert not torch.equal(
        network.module.state_dict()["fc1.0.weight"],
        load_network(folder / "factorized.safetensors").module.state_dict()["fc1.0.weight"],
    )
    assert main([*arguments, "--rank-multiple", "2", *TRAINING, "--no-bench", "--resume"]) == 2
    assert "was factorized with rank_multiple 1, not 2" in capsys.readouterr().err


def test_without_data_the_verdict_says_that_nothing_was_healed_and_time_is_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["factorize", str(checkpoint), "--method", "svd", "--rank", "8", "--seed", "1"]) == 0
    *text, verdict, artifact, following = capsys.readouterr().out.splitlines()
    assert "not healed, accuracy not judged: add --data DIR" in verdict
    assert "of the time (95 % interval" in verdict
    assert artifact.split()[-1] == following.split()[-1]
    assert following.split()[1:3] == ["edgecv", "export"]
    assert any(line.split()[:3] == ["fc1", "svd", "8"] for line in text)


def test_by_latency_keeps_only_what_was_measured_to_be_faster(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["factorize", str(checkpoint), "--method", "svd", "--layers", "fc1", "--rank", "4", "--by", "latency"]
    code = main([*arguments, "-o", str(tmp_path / "run"), "--no-bench", "--json"])
    out, err = capsys.readouterr()
    if code:  # a busy machine may see no difference
        assert code == 2
        assert "none is certainly faster than its layer" in err
        assert not (tmp_path / "run" / "model.safetensors").exists()
    else:
        kept = [t for t in json.loads(out)["timed"] if t["kept"]]
        assert kept
        assert all(t["speedup"]["low"] > 1 for t in kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "latency=0.5"], "--by latency"),
        (["--to", "macs=0.5", "--rank", "3"], "--to and --rank contradict"),
        (["--to", "mac=0.5"], "Did you mean 'macs'"),
        (["--method", "tuker"], "Did you mean 'tucker'"),
        (["--energy", "1.5"], "energy 1.5 is not within 0 to 1"),
        (["--layers", "fc9"], "'fc9' matches no convolution or linear layer"),
        (["--energy", "1"], "no layer gets cheaper"),
        (["--to", "macs=0.001"], "cannot be reached"),
        (["--method", "cp", "--layers", "fc1"], "can be factorized by --method cp"),
        (["--eval-data", "."], "add --data DIR"),
        (["--bench-threads", "many"], "--bench-threads 'many' is neither auto nor a number"),
        (["--provider", "nonsense"], "unknown provider 'nonsense'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    options: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["factorize", str(checkpoint), "-o", str(tmp_path / "run"), "--no-bench", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_other_classes_are_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_color_folder(tmp_path / "colors", per_class=4, size=20)
    (other / "red").rename(other / "violet")
    run = ["-o", str(tmp_path / "run"), *TRAINING, "--no-bench"]
    assert main(["factorize", str(checkpoint), "--energy", "0.5", "--data", str(other), *run]) == 2
    assert capsys.readouterr().err
