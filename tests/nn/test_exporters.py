import onnx_ir as ir
import pytest
import torch

from edgecv.errors import GateFailedError, UsageError
from edgecv.nn.exporters import Attempt, export_graph

SIZE = (3, 16, 16)


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    ).eval()


def _batch(model: ir.Model) -> object:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return shape[0]


@pytest.mark.parametrize("rung", range(4))
def test_the_next_rung_is_tried_when_a_graph_fails_its_check_and_the_reasons_are_kept(rung: int) -> None:
    tried: list[Attempt] = []

    def finish(model: ir.Model, attempt: Attempt) -> ir.Model:
        tried.append(attempt)
        if len(tried) <= rung:
            raise GateFailedError("differs")
        return model

    exported = export_graph(_network(), SIZE, opset=18, dynamic_size=False, finish=finish)
    assert len(tried) == rung + 1
    assert [name for name, _ in exported.failures] == [a.name for a in tried[:-1]]
    assert all("differs" in why for _, why in exported.failures)
    assert isinstance(_batch(exported.model), int) == (not exported.attempt.dynamic_batch)


def test_no_rung_left_is_a_failed_gate_with_every_reason() -> None:
    def finish(model: ir.Model, attempt: Attempt) -> ir.Model:
        raise GateFailedError(f"bad {attempt.name}")

    with pytest.raises(GateFailedError, match=r"bad dynamo, dynamic.*bad torchscript, static"):
        export_graph(_network(), SIZE, opset=18, dynamic_size=False, finish=finish)


def test_a_users_mistake_is_not_tried_again() -> None:
    def finish(model: ir.Model, attempt: Attempt) -> ir.Model:
        raise UsageError("opset 18 needs IR 8")

    with pytest.raises(UsageError, match="IR 8"):
        export_graph(_network(), SIZE, opset=18, dynamic_size=False, finish=finish)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_dynamic_size_leaves_height_and_width_free(exporter: str) -> None:
    def finish(model: ir.Model, attempt: Attempt) -> ir.Model:
        if attempt.exporter != exporter:
            raise GateFailedError("another exporter is tested")
        return model

    exported = export_graph(_network(), SIZE, opset=18, dynamic_size=True, finish=finish)
    shape = exported.model.graph.inputs[0].shape
    assert shape is not None
    assert [isinstance(d, int) for d in shape] == [False, True, False, False]
