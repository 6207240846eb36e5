import glob
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import build_tiny_model

from edgecv.benchmark import compare_latency
from edgecv.benchmark.latency import Extras, run_benchmark
from edgecv.benchmark.plan import Candidate, Preset, plan_candidates
from edgecv.benchmark.statistics import MIN_TURNS
from edgecv.errors import EnvironmentRefusedError, UsageError

BRIEF = Preset("brief", min_queries=20, min_seconds=0.02, max_seconds=5, min_turns=MIN_TURNS, turn_ms=1, min_runs=2,
               max_warm_up_seconds=0.2)  # fmt: skip


def test_two_models_are_compared_with_the_first(tiny_model: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other.onnx", noise=0.1)
    report = compare_latency([tiny_model, other], preset=BRIEF, threads="1", seed=3)
    first, second = report.results
    assert first.speedup is None
    assert second.speedup is not None
    assert second.speedup.low <= second.speedup.estimate <= second.speedup.high
    assert "other.onnx" in report.verdict
    assert "tiny.onnx" in report.verdict
    assert first.rounds == second.rounds == len(first.turn_medians_ms) >= BRIEF.min_turns
    assert first.n >= BRIEF.min_queries
    assert first.model_bytes == tiny_model.stat().st_size
    assert first.cold_start_ms == pytest.approx(first.start_ms + first.import_ms + first.load_ms + first.first_run_ms)
    assert first.peak_rss_mib >= first.peak_rss_after_load_mib >= first.rss_before_load_mib > 0


def test_report_is_json_with_host_facts_sample_size_and_seed(tiny_model: Path) -> None:
    report = compare_latency([tiny_model], preset=BRIEF, threads="1", seed=3)
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["results"][0]["model_sha256"] == report.results[0].model_sha256
    assert report.host["seed"] == report.seed == 3
    assert report.host["threads"] == [1]
    assert report.host["n"] == report.results[0].n
    assert asdict(report)["verdict"] == report.verdict


def test_single_model_has_no_ratio_but_a_verdict(tiny_model: Path) -> None:
    report = compare_latency([tiny_model], preset=BRIEF, threads="1")
    assert report.verdicts == ()
    assert report.verdict.startswith("tiny.onnx takes")


def test_percentiles_that_the_runs_do_not_support_are_left_out(tiny_model: Path) -> None:
    few = Preset("few", 16, 1e-6, 5, min_turns=MIN_TURNS, turn_ms=0, min_runs=1, max_warm_up_seconds=0.05)
    (result,) = compare_latency([tiny_model], preset=few, threads="1").results
    assert result.n < 64
    assert list(result.percentiles) == ["latency_p50_ms"]


def test_batches_are_compared_per_image(tiny_model: Path) -> None:
    report = run_benchmark(plan_candidates([tiny_model], batches=[1, 4], threads=["1"]), BRIEF)
    one, four = report.results
    assert four.images_per_second == pytest.approx(4000 / four.latency_p50_ms)
    assert four.speedup is not None
    per_image = [m1 * 4 / m4 for m1, m4 in zip(one.turn_medians_ms, four.turn_medians_ms, strict=True)]
    assert min(per_image) <= four.speedup.estimate <= max(per_image)


def test_photographs_become_inputs_and_decode_to_label_is_its_own_figure(tiny_model: Path, color_folder: Path) -> None:
    images = tuple(sorted(color_folder.rglob("*.png")))
    (result,) = run_benchmark([Candidate(tiny_model, threads="1")], BRIEF, extras=Extras(images)).results
    assert result.inputs == "photographs"
    e = result.end_to_end
    assert e is not None
    assert e["n"] > 0
    assert all(e[f"{part}_p50_ms"] > 0 for part in ("decode", "run", "label", "total"))
    assert e["images_per_second"] == pytest.approx(1000 / e["total_p50_ms"])


def test_photographs_need_a_manifest(tmp_path: Path, color_folder: Path) -> None:
    foreign = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    extras = Extras(tuple(color_folder.rglob("*.png")))
    with pytest.raises(UsageError, match="no edgecv manifest"):
        run_benchmark([Candidate(foreign)], BRIEF, extras=extras)


def test_foreign_model_runs_on_random_inputs(tmp_path: Path) -> None:
    foreign = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    (result,) = compare_latency([foreign], preset=BRIEF, threads="1").results
    assert result.inputs == "random"


def test_profile_is_read_and_its_file_removed(tiny_model: Path) -> None:
    pattern = str(Path(tempfile.gettempdir()) / "edgecv-profile-*")
    before = set(glob.glob(pattern))
    (result,) = run_benchmark([Candidate(tiny_model, threads="1")], BRIEF, extras=Extras(profile=True)).results
    assert result.profile is not None
    assert result.profile.runs >= 2
    assert result.node_share == {"cpu": 1.0}
    assert set(glob.glob(pattern)) <= before


def test_provider_that_is_not_here_ends_the_whole_benchmark(tiny_model: Path) -> None:
    with pytest.raises(EnvironmentRefusedError, match="cuda"):
        run_benchmark(plan_candidates([tiny_model], ["cpu", "cuda"]), BRIEF)


def test_fallback_says_what_was_obtained(tiny_model: Path) -> None:
    (result,) = compare_latency([tiny_model], provider="cuda,cpu", preset=BRIEF).results
    assert result.provider == "cuda,cpu"
    assert result.providers == ("cpu",)
    assert any("cpu instead of cuda" in note for note in result.notes)


def test_missing_model_is_refused_before_anything_starts(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.onnx' does not exist"):
        compare_latency([tiny_model, tmp_path / "nope.onnx"], preset=BRIEF)


def test_nothing_to_time_is_an_error() -> None:
    with pytest.raises(UsageError, match="no model"):
        run_benchmark([], BRIEF)


def test_base_install_is_enough(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = (
        "import sys\nfor name in ('onnx', 'onnx_ir', 'torch', 'timm', 'typer', 'scipy'): sys.modules[name] = None\n"
    )
    (tmp_path / "sitecustomize.py").write_text(absent)  # seen by this child and by the workers it starts
    script = (
        "import sys; from pathlib import Path; from edgecv.benchmark import compare_latency\n"
        "from edgecv.benchmark.plan import Preset\n"
        "preset = Preset('brief', 4, 0.001, 5, 2, 1, 1, 0.1)\n"
        f"print(compare_latency([Path({str(tiny_model)!r})], preset=preset, threads='1').results[0].n)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4
