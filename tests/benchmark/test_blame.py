from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgecv.benchmark import compare_latency
from edgecv.benchmark.blame import describe_losses, explain_slower, find_losses
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.profile import Profile, Slice


def profile(**operators: float) -> Profile:
    rows = tuple(Slice(name, 1, ms, 0.0) for name, ms in operators.items())
    return Profile(2, sum(operators.values()), sum(operators.values()), rows, (), (), 0, 0.0)


def test_operators_that_do_the_same_work_are_compared_with_each_other() -> None:
    before = profile(Conv=5.0, QuickGelu=1.0, Gemm=0.5)
    after = profile(QLinearConv=2.0, QLinearSigmoid=1.5, QLinearMul=1.25, QGemm=0.25, QuantizeLinear=0.5)
    losses = [(x.kind, x.lost_ms) for x in find_losses(before, after)]
    assert losses == [("activations and multiplications", 1.75), ("conversion to and from int8", 0.5)]


def test_an_operator_of_no_known_kind_keeps_its_name() -> None:
    (loss,) = find_losses(profile(Concat=1.0), profile(QLinearConcat=1.5, NhwcMaxPool=0.0))
    assert (loss.kind, loss.reference_ms, loss.candidate_ms) == ("Concat", 1.0, 1.5)


def test_the_words_name_the_worst_first_and_no_more_than_asked() -> None:
    losses = [{"kind": k, "reference_ms": 1.0, "candidate_ms": 2.5} for k in ("a", "b", "c", "d")]
    assert describe_losses(losses) == "a 1.00 → 2.50 ms, b 1.00 → 2.50 ms, c 1.00 → 2.50 ms"
    assert describe_losses([]) == ""


def _chain(path: Path, op_type: str, length: int) -> Path:
    names = ["x", *(f"v{i}" for i in range(length - 1)), "y"]
    nodes = [helper.make_node(op_type, [a], [b]) for a, b in pairwise(names)]
    shape = [1, 64, 64, 64]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "chain", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_the_profiles_of_two_real_models_name_the_operator(tmp_path: Path) -> None:
    quick, slow = _chain(tmp_path / "quick.onnx", "Neg", 2), _chain(tmp_path / "slow.onnx", "Erf", 12)
    preset = Preset("short", min_queries=4, min_seconds=0.05, max_seconds=2, max_warm_up_seconds=0.2)
    losses = explain_slower(compare_latency([quick, slow], threads="1", preset=preset))
    assert losses[0]["kind"] == "Erf"
    assert losses[0]["candidate_ms"] > losses[0]["reference_ms"] == pytest.approx(0)
