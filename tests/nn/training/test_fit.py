import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_color_folder
from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.checkpoint import load_network
from edgecv.nn.training import checkpoints, curves, epoch, fit, supervised

sys.path.insert(0, str(Path(__file__).parent))
from small_training import newest_state, small_data, small_fit, small_network, weights_of

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "draw", lambda path, history: None)


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_folder(tmp_path_factory.mktemp("data") / "colors", per_class=12, size=20)


@pytest.fixture(scope="module")
def trained(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of three steps, every state of it kept."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    small_fit(colors, folder)
    return folder


def test_a_training_learns_and_leaves_artifact_log_and_checkpoints(colors: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    network = small_network()
    result = small_fit(
        colors, tmp_path / "run", network=network, epochs=8, learning_rate=0.5, mixup=0.0, cutmix=0.0, tell=lines.append
    )
    assert result.best_top1 > 0.6
    assert [row["epoch"] for row in result.history] == list(range(1, 9))
    assert result.best_epoch == 1 + [r["top1"] for r in result.history].index(result.best_top1)
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 9
    assert sum(line.startswith("epoch ") for line in lines) == 8
    again = load_network(result.checkpoint).module.state_dict()
    assert all(torch.equal(again[k], v) for k, v in network.module.state_dict().items())
    assert not network.module.training


def test_two_checkpoints_stay_with_their_checksums(trained: Path) -> None:
    names = sorted(p.name for p in (trained / "checkpoints").iterdir())
    assert [n.endswith(".sha256") for n in names] == [False, True, False, True]
    subprocess.run(["sha256sum", "-c", names[3]], cwd=trained / "checkpoints", check=True, capture_output=True)


def test_resuming_a_finished_training_changes_nothing(colors: Path, trained: Path) -> None:
    before = weights_of(trained)
    assert small_fit(colors, trained, resume=True).best_epoch >= 1
    assert weights_of(trained) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "no checksum"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(
    damage: str, colors: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    small_fit(colors, folder)
    newest = max((folder / "checkpoints").glob("state-*.pt"))
    data = bytearray(newest.read_bytes())
    if damage == "no checksum":
        newest.with_name(newest.name + ".sha256").unlink()
    else:
        data[len(data) // 2] ^= 1
        newest.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    lines: list[str] = []
    small_fit(colors, folder, resume=True, tell=lines.append)
    assert any("warning" in line and newest.name in line for line in lines)
    assert weights_of(folder) == weights_of(trained)


def test_killed_anywhere_it_goes_on_to_the_same_bits(colors: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(HERE / "kill_and_resume.py"), str(colors), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(script, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.endswith("killed -9, resumed 0, weights True, momentum True")


@pytest.mark.parametrize(
    ("change", "key"), [({"learning_rate": 0.06}, "learning_rate"), ({"seed": 6}, "seed"), ({"batch": 9}, "batch")]
)
def test_changed_settings_are_refused_by_name(change: dict[str, float], key: str, colors: Path, trained: Path) -> None:
    with pytest.raises(UsageError, match=rf"{key} was .* --force"):
        small_fit(colors, trained, resume=True, **change)


def test_a_changed_teacher_is_refused_by_name(colors: Path, trained: Path) -> None:
    with pytest.raises(UsageError, match="teacher was not set and is abc"):
        small_fit(colors, trained, resume=True, identity={"teacher": "abc"})


def test_changed_images_are_refused(tmp_path: Path) -> None:
    colors = write_color_folder(tmp_path / "colors", per_class=12, size=20)
    small_fit(colors, tmp_path / "run", epochs=1)
    for picture in (tmp_path / "colors" / "red").glob("*.png"):
        with picture.open("ab") as f:
            f.write(b"\0")
    with pytest.raises(UsageError, match="images"):
        small_fit(colors, tmp_path / "run", epochs=1, resume=True)


def test_what_reads_faster_may_change(colors: Path, trained: Path) -> None:
    small_fit(colors, trained, resume=True, workers=1, checkpoint_minutes=3.0)


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, file: object, written: list[int]) -> None:
            self._file, self._written = file, written

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *exc: object) -> None:
            self._file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> int:
            self._written[0] += len(data)
            if self._written[0] > 400_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self._file.write(data))  # type: ignore[attr-defined]

        def flush(self) -> None:
            self._file.flush()  # type: ignore[attr-defined]

    real, written = Path.open, [0]
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: Full(real(self, *a, **k), written) if k.get("buffering") == 0 else real(self, *a, **k),
    )
    with pytest.raises(UsageError, match="No space left") as error:
        small_fit(colors, tmp_path / "run")
    assert str(error.value).count(".") <= 3
    monkeypatch.undo()
    assert checkpoints.load_newest(tmp_path / "run", pytest.fail)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_broken_image_is_named_and_its_repair_is_other_data(tmp_path: Path) -> None:
    colors = write_color_folder(tmp_path / "colors", per_class=12, size=20)
    data = small_data(colors, tmp_path / "run")
    victim = data.train.samples[5][0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:60] + b"\0" * (len(whole) - 60))
    with pytest.raises(UsageError, match=rf"{victim.name}.*--force"):
        small_fit(colors, tmp_path / "run")
    victim.write_bytes(whole)
    with pytest.raises(UsageError, match="images have changed"):
        small_fit(colors, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_the_training(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = epoch._backward
    monkeypatch.setattr(epoch, "_backward", lambda run, batch: backward(run, batch) * float("inf"))
    with pytest.raises(UsageError, match="not finite"):
        small_fit(colors, tmp_path / "run")


def test_two_trainings_do_not_write_to_one_folder(colors: Path, tmp_path: Path) -> None:
    with checkpoints.sole_writer(tmp_path), pytest.raises(UsageError, match="another training"):
        small_fit(colors, tmp_path)


class Slow(nn.Module):
    """A student whose second batch takes ten minutes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.calls = 0
        self.module = module

    def __call__(self, *args: object) -> torch.Tensor:
        answer = self.module(*args)
        self.calls += 1
        if self.calls == 2:
            print("slow", flush=True)
            time.sleep(600)
        return answer


def slow_training(colors: Path, folder: Path, signal_after: bool = True) -> None:
    network = small_network()
    settings = TrainSettings(epochs=2, batch=8, learning_rate=0.05, workers=1, threads=1, precision="float32")
    plain = supervised(network.input, settings)
    slow = Slow(nn.Identity())

    class Late:
        parameters = None

        def __call__(self, student, pixels, targets, batch):  # type: ignore[no-untyped-def]
            return slow(plain(student, pixels, targets, batch))

    fit(network, small_data(colors, folder), settings, folder, objective=Late(), seed=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_long_step_leaves_with_a_checkpoint_of_the_step_before(
    number: signal.Signals, colors: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from test_fit import slow_training; "
        f"slow_training(Path({str(colors)!r}), Path({str(tmp_path / 'run')!r}))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "slow\n"
        child.send_signal(number)
        assert child.wait(timeout=120) == 130
    state = newest_state(tmp_path / "run")
    assert state["position"]["step"] == 1
    statistics = state["learner"]["module"]["stages.0.bn1.num_batches_tracked"]
    assert int(statistics) == 1  # the forward pass of the second step is undone


@pytest.fixture(scope="module")
def two_processes(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("team")
    script = [sys.executable, str(HERE / "two_processes.py"), str(colors), str(root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(script, capture_output=True, text=True, timeout=580, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_same_weights_resume_and_come_close_to_one(
    parallel: str, two_processes: list[str]
) -> None:
    line = next(line for line in two_processes if line.startswith(parallel))
    assert "killed True, resumed [0, 0], straight [0, 0], with norms [0, 0], ranks differ by [0.0, 0.0]" in line
    assert "resumed is straight True" in line
    assert float(line.rpartition(" ")[2]) < 1e-5


def test_frozen_layers_keep_weights_and_statistics(colors: Path, tmp_path: Path) -> None:
    network = small_network()
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    small_fit(colors, tmp_path / "run", network=network, freeze_to="stages.0", epochs=1, ema=0.0)
    after = network.module.state_dict()
    frozen = [k for k in before if k.startswith(("stem.", "stages.0."))]
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert np.isfinite(after["classifier.weight"].numpy()).all()
