"""A few networks of the sweep (tests/benchmarks/prune_sweep.py): pruned, saved, loaded, exported, verified."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("skimage", reason="exports are checked on its photographs")

SWEEP = Path(__file__).parents[2] / "benchmarks" / "prune_sweep.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", ["resnet18:64", "mobilenetv3_large_100:64", "vit_tiny_patch16_224:64", "regnetx_002:64"]
)
def test_prune_export_verify(spec: str) -> None:
    loader = importlib.util.spec_from_file_location("prune_sweep", SWEEP)
    assert loader is not None
    assert loader.loader is not None
    sweep = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(sweep)
    result = sweep.sweep_one(spec, "macs=0.7")
    assert 0.6 < result["macs"] <= 0.7
    assert result["top1_agreement"] == 1
