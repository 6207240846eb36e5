import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import build_tiny_model, write_color_folder
from PIL import Image

from edgecv import workspace
from edgecv.cli.main import main
from edgecv.data.dataset import Dataset
from edgecv.errors import GateFailedError, UsageError
from edgecv.files import sha256_file
from edgecv.graph.model_file import load_model, require_manifest
from edgecv.pipeline import QuantizeRequest, quantize_model
from edgecv.runtime import Model


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model() -> Path:
    return build_tiny_model(Path("tiny.onnx"))


@pytest.fixture
def request_int8(model: Path) -> QuantizeRequest:
    return QuantizeRequest(model, "int8", data=write_color_folder(Path("calib"), seed=1), bench=False)


def write_near_ties(folder: Path, model_path: Path, count: int = 250) -> Path:
    """Write almost gray images into the folder of the class the float model gives them: what int8 flips first."""
    rng = np.random.default_rng(0)
    with Model.load(model_path) as model:
        for i in range(count):
            shade = rng.integers(60, 200) + rng.integers(-2, 3, 3)
            pixels = (shade + rng.integers(-1, 2, (32, 32, 3))).astype(np.uint8)
            name = folder / model(pixels).label
            name.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(name / f"{i}.png")
    return folder


def test_int8_is_written_beside_its_source_with_its_history(request_int8: QuantizeRequest) -> None:
    result = quantize_model(request_int8)
    path = Path(result["artifact"])
    assert path == Path("tiny.int8.onnx")
    manifest = require_manifest(load_model(path), path)
    assert manifest.made_from == {"file": "tiny.onnx", "sha256": sha256_file(Path("tiny.onnx"))}
    assert manifest.calibration == tuple(sorted(sha256_file(p) for p in Path("calib").rglob("*.png")))
    assert manifest.stages[-1]["name"] == "quantize"
    assert workspace.current_model() == path
    assert result["bytes_after"] == path.stat().st_size
    assert result["parity"]["judged"] is False
    assert result["host"]["n"] == 18
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(path).graph.node}
    ort.InferenceSession(str(path))


def test_the_same_request_gives_the_same_bytes(request_int8: QuantizeRequest) -> None:
    files = []
    for name in ("a.onnx", "b.onnx"):
        quantize_model(replace(request_int8, output=Path(name)))
        files.append(Path(name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("mode", ["dynamic", "fp16", "weights16", "weights8"])
def test_other_modes_need_no_images(model: Path, mode: str) -> None:
    result = quantize_model(QuantizeRequest(model, mode, bench=False))
    assert result["artifact"] == f"tiny.{mode}.onnx"
    assert result["parity"] is None
    with Model.load(result["artifact"]) as quantized:
        assert quantized(np.full((32, 32, 3), (200, 30, 30), np.uint8)).label == "red"


def test_weights_alone_are_stored_in_fewer_bits_and_the_report_says_what_for(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "tiny.onnx", "--weights-only", "8", "--no-bench"]) == 0
    assert "for speed use --int8" in capsys.readouterr().out
    stage = require_manifest(load_model(Path("tiny.weights8.onnx")), Path("tiny.weights8.onnx")).stages[-1]
    assert stage["settings"]["weights"] == "int8 per channel"
    data = str(write_color_folder(Path("calib"), seed=1))
    assert main(["quantize", "tiny.onnx", "--weights-only", "4", "--data", data, "--no-bench"]) == 0
    assert main(["quantize", "tiny.onnx", "--weights-only", "4", "--no-bench", "--force"]) == 2
    assert main(["quantize", "tiny.onnx", "--weights-only", "5", "--no-bench"]) == 2
    assert main(["quantize", "tiny.weights8.onnx", "--int8", "--data", data]) == 2
    assert "its weights are stored as int8" in capsys.readouterr().err


def test_bfloat16_is_refused_where_nothing_runs_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "tiny.onnx", "--bf16"]) == 3
    error = capsys.readouterr().err
    assert "no bfloat16 kernel for" in error
    assert "Conv" in error
    assert not Path("tiny.bf16.onnx").exists()


def test_an_unknown_provider_is_refused_before_any_work(request_int8: QuantizeRequest) -> None:
    with pytest.raises(UsageError, match="unknown provider 'gpu'"):
        quantize_model(replace(request_int8, provider="gpu"))


def test_a_gate_that_passes_is_recorded_in_the_file(request_int8: QuantizeRequest) -> None:
    judging = write_color_folder(Path("eval"), per_class=40, seed=2)
    result = quantize_model(replace(request_int8, eval_data=judging, max_drop=5.0))
    assert result["parity"]["verdict"] == "pass"
    entry = require_manifest(load_model(Path("tiny.int8.onnx")), Path("tiny.int8.onnx")).parity[-1]
    assert entry["verdict"] == "pass"
    assert entry["n"] == 120


def test_a_gate_that_fails_writes_no_file(model: Path, request_int8: QuantizeRequest) -> None:
    judging = write_near_ties(Path("ties"), model)
    before = set(Path().rglob("*"))
    with pytest.raises(GateFailedError, match=r"tiny\.int8\.onnx.*not written.*over the limit of 0") as failed:
        quantize_model(replace(request_int8, eval_data=judging, max_drop=0.0, method="per-channel"))
    assert set(Path().rglob("*")) == before
    assert failed.value.report is not None
    assert failed.value.report["parity"]["verdict"] == "fail"
    assert failed.value.report["artifact"] is None


def test_a_gate_that_fails_still_prints_its_report(
    model: Path, request_int8: QuantizeRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    judging = write_near_ties(Path("ties"), model)
    arguments = ["quantize", "tiny.onnx", "--int8", "--data", "calib", "--eval-data", str(judging), "--max-drop", "0"]
    assert main([*arguments, "--method", "per-channel", "--no-bench", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "fail"
    assert captured.err.count("\n") == 1


def test_a_handful_of_images_is_undecided_and_the_file_is_kept(request_int8: QuantizeRequest) -> None:
    judging = write_color_folder(Path("eval"), per_class=2, seed=2)
    result = quantize_model(replace(request_int8, eval_data=judging, max_drop=0.5))
    assert result["parity"]["verdict"] == "undecided"
    assert result["parity"]["images_needed"] > 6
    assert Path("tiny.int8.onnx").is_file()


def test_judging_on_a_calibration_image_is_refused(request_int8: QuantizeRequest) -> None:
    begun: list[str] = []
    with pytest.raises(UsageError, match="18 of the 18 judging images calibrate too"):
        quantize_model(
            replace(request_int8, eval_data=Path("calib"), max_drop=1.0), lambda label, done, total: begun.append(label)
        )
    assert not Path("tiny.int8.onnx").exists()
    assert begun == [], "it is found before any work is done"


def test_an_interrupt_leaves_nothing_behind(request_int8: QuantizeRequest) -> None:
    before = set(Path().rglob("*"))

    def interrupt(label: str, done: int, total: int) -> None:
        if label == "judging":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_model(request_int8, interrupt)
    assert set(Path().rglob("*")) == before


def test_the_time_of_both_models_is_measured(request_int8: QuantizeRequest) -> None:
    result = quantize_model(replace(request_int8, bench=True))
    assert [r["model"] for r in result["latency"]["results"]] == ["tiny.onnx", "tiny.int8.onnx"]
    assert "tiny.int8.onnx" in result["latency"]["verdict"]


def test_a_data_set_in_memory_serves_as_well_as_a_folder(request_int8: QuantizeRequest) -> None:
    from edgecv.data.folder import open_dataset

    data: Dataset = open_dataset(Path("calib"))
    result = quantize_model(replace(request_int8, data=data, images=4))
    assert result["host"]["n"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, mode="int4"), "int4"),
        (lambda r: replace(r, data=None), "--data"),
        (lambda r: replace(r, max_drop=1.0), "--eval-data"),
        (lambda r: replace(r, output=Path("tiny.onnx"), force=True), "never overwritten"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    request_int8: QuantizeRequest, change: Callable[[QuantizeRequest], QuantizeRequest], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        quantize_model(change(request_int8))


def test_an_already_quantized_model_is_refused(request_int8: QuantizeRequest) -> None:
    quantize_model(request_int8)
    with pytest.raises(UsageError, match="already"):
        quantize_model(replace(request_int8, model=Path("tiny.int8.onnx")))


def test_a_slower_model_comes_with_the_work_it_loses_time_in(
    request_int8: QuantizeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.benchmark import latency
    from edgecv.benchmark.plan import Preset
    from edgecv.benchmark.statistics import Interval

    measure = latency.compare_latency
    short = Preset("short", min_queries=8, min_seconds=0.05, max_seconds=1, max_warm_up_seconds=0.2)

    def with_speedup(estimate: float) -> dict[str, object]:
        def measured(models: list[Path], **options: object) -> object:
            report = measure(models, **(options | {"preset": short}))  # type: ignore[arg-type]
            speedup = Interval(estimate, estimate * 0.98, estimate * 1.02, 0.95)
            return replace(report, results=(report.results[0], replace(report.results[1], speedup=speedup)))

        monkeypatch.setattr(latency, "compare_latency", measured)
        result = quantize_model(replace(request_int8, bench=True, threads="1", force=True))["latency"]
        assert result is not None
        return result

    slow = with_speedup(0.5)
    assert slow["slower"]
    assert all(x["candidate_ms"] > x["reference_ms"] for x in slow["slower_in"])  # type: ignore[attr-defined]
    fast = with_speedup(1.5)
    assert (fast["slower"], fast["slower_in"]) == (False, [])


def test_a_model_that_answers_nan_fails_the_gate_in_words(request_int8: QuantizeRequest) -> None:
    proto = onnx.load(build_tiny_model(Path("nan.onnx")))
    proto.graph.node[-1].output[0] = "raw"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    proto.graph.node.append(onnx.helper.make_node("Sub", ["raw", "raw"], ["none"], "none"))
    proto.graph.node.append(onnx.helper.make_node("Div", ["none", "zero"], ["logits"], "nan"))
    onnx.save(proto, "nan.onnx")
    Path("flat").mkdir()
    for path in Path("calib").rglob("*.png"):
        Image.open(path).rotate(90).save(Path("flat") / f"{path.parent.name}{path.name}")
    with pytest.raises(GateFailedError, match="not written"):
        quantize_model(replace(request_int8, model=Path("nan.onnx"), eval_data=Path("flat"), max_drop=1.0))


def test_numbered_folders_name_the_classes_of_a_model_without_labels(request_int8: QuantizeRequest) -> None:
    from edgecv.manifest import OutputSpec

    build_tiny_model(Path("plain.onnx"), output=OutputSpec("logits"))
    judging = write_color_folder(Path("eval"), per_class=10, seed=2)
    for number, name in enumerate(("red", "green", "blue")):
        (judging / name).rename(judging / str(number))
    result = quantize_model(replace(request_int8, model=Path("plain.onnx"), eval_data=judging, max_drop=50.0))
    assert result["parity"]["drop_points"] is not None
    assert result["verdict"] == "pass"
