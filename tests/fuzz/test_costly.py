"""Models made to cost the checks themselves time or memory: each is taken or refused before it counts as a hang."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from fuzz.run import Outcome, _try
from onnx import TensorProto, helper, numpy_helper

NODES = 20_000


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], typed: bool = False) -> bytes:
    tensors = [
        helper.make_tensor(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape, v.ravel())
        if typed
        else numpy_helper.from_array(v, k)
        for k, v in weights.items()
    ]
    taken = [helper.make_tensor_value_info("x", TensorProto.INT64, [4])]
    graph = helper.make_graph(nodes, "g", taken, [helper.make_tensor_value_info("y", TensorProto.INT64, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def chain(op: str, *others: str) -> list[onnx.NodeProto]:
    names = ["x", *(f"t{i}" for i in range(NODES - 1)), "y"]
    return [helper.make_node(op, [names[i], *others], [names[i + 1]]) for i in range(NODES)]


COSTLY: dict[str, Callable[[], bytes]] = {
    "dimensions of a million digits": lambda: model(chain("Tile", "r"), {"r": np.array([(1 << 63) - 1])}),
    "one divisor of a million numbers": lambda: model(chain("Div", "d"), {"d": np.full(1 << 20, 3)}),
    "the same, packed": lambda: model(chain("Div", "d"), {"d": np.full(1 << 20, 1 << 40)}, typed=True),
    "tables of tables": lambda: model(
        [helper.make_node("Gather", ["w", "i"], [f"t{i}"], axis=1) for i in range(NODES)],
        {"w": np.zeros((4096, 1), np.int64), "i": np.zeros(4096, np.int64)},
    ),
    "broadcast constants": lambda: model(
        [helper.make_node("Add", ["a", "b"], [f"t{i}"]) for i in range(NODES)],
        {"a": np.zeros((4096, 1), np.int64), "b": np.zeros((1, 4096), np.int64)},
    ),
    "a shape of four thousand numbers": lambda: model(chain("Reshape", "s"), {"s": np.ones(4096, np.int64)}),
    "fields and fields": lambda: b"\x08\x01" * 3_000_000,
    "attributes of many numbers": lambda: model(
        [helper.make_node("Pad", ["x"], [f"t{i}"], pads=[1] * 60_000) for i in range(100)], {}
    ),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_model_is_decided_before_it_counts_as_a_hang(name: str) -> None:
    outcome = Outcome()
    _try("policy", COSTLY[name](), outcome)
    assert {error for _, error in outcome.findings.values()} == set()
