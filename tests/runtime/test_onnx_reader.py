"""The reader of ONNX files: reads what onnx writes, and refuses what readers may understand differently."""

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import UsageError
from edgecv.runtime import onnx_reader, wire
from edgecv.runtime.onnx_reader import read_onnx
from edgecv.runtime.policy import POLICIES, check_model
from edgecv.runtime.tensor_values import flaw, small_values
from edgecv.runtime.wire import Budget, Field, Packed, WireError, decode, numbers


def tiny(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return onnx.load(build_tiny_model(tmp_path_factory.mktemp("m") / "m.onnx"))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_a_model_is_read_as_onnx_reads_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    proto = tiny(tmp_path_factory)
    found = read_onnx(proto.SerializeToString())
    assert found.opsets == {"": 18}
    assert found.metadata == {p.key: p.value for p in proto.metadata_props}
    assert [(n.op, n.name, list(n.inputs), list(n.outputs)) for n in found.graph.nodes] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in proto.graph.node
    ]
    for node, there in zip(found.graph.nodes, proto.graph.node, strict=True):
        for attribute in there.attribute:
            value = helper.get_attribute_value(attribute)
            ours = node.attributes[attribute.name]
            assert (list(ours.ints) if isinstance(value, list) else ours.i) == value
    for tensor in proto.graph.initializer:
        assert np.array_equal(
            small_values(found.graph.initializers[tensor.name], 1 << 20), numpy_helper.to_array(tensor)
        )
    assert found.graph.inputs[0].shape == (-1, 32, 32, 3)
    assert found.graph.outputs[0].type == TensorProto.FLOAT


@pytest.mark.parametrize(
    "kind", ["FLOAT", "DOUBLE", "INT64", "INT32", "INT8", "UINT8", "UINT16", "UINT64", "BOOL", "FLOAT16", "BFLOAT16"]
)
def test_small_constants_of_every_type_and_form_have_onnx_values(kind: str) -> None:
    code = getattr(TensorProto, kind)
    values = [0, 1] if kind == "BOOL" else [0, 1, 7, 100]
    values += [-5] if kind in ("FLOAT", "DOUBLE", "INT64", "INT32", "INT8", "FLOAT16", "BFLOAT16") else []
    typed = helper.make_tensor("t", code, [len(values)], values)
    raw = numpy_helper.from_array(numpy_helper.to_array(typed), "t")
    for tensor in (typed, raw):
        graph = helper.make_graph([], "g", [], [], [tensor])
        data = helper.make_model(graph).SerializeToString()
        found = read_onnx(data).graph.initializers["t"]
        assert list(small_values(found, 10)) == values
        assert small_values(found, 1) is None
        assert flaw(found) == ""


def test_numbers_of_typed_lists_are_counted() -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [3], [1, 2, 3])
    tensor.dims[0] = 4
    found = read_onnx(helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString())
    with pytest.raises(WireError, match="has 3 numbers, its shape says 4"):
        small_values(found.graph.initializers["t"], 10)
    with pytest.raises(WireError, match="has 3 numbers, its shape says 4"):
        flaw(found.graph.initializers["t"])


SCHEMA = {1: Field("one", wire.INT), 2: Field("many", wire.INT, True), 3: Field("text", wire.TEXT)}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "ends in the middle of a number"),
        (b"\x08" + b"\x80" * 9, "ends in the middle of a number"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x08\x01\x08\x02", "'one' is given twice"),
        (b"\x1a\x05abc", "ends in the middle of a field"),
        (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "ends in the middle of a field"),
        (b"\x0b\x0c", "wire type 3 is not used"),
        (b"\x0e", "wire type 6 is not used"),
        (b"\x00\x01", "field number 0 does not exist"),
        (varint(1 << 40) + b"\x01", "does not exist"),
        (b"\x0a\x01a", "'one' has wire type 2"),
        (b"\x19" + bytes(8), "'text' has wire type 1"),
    ],
)
def test_what_is_no_message_or_not_one_for_every_reader_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        decode(memoryview(data), SCHEMA, Budget())


def test_unknown_fields_are_skipped_and_numbers_come_packed_or_not() -> None:
    data = field(9, b"future") + b"\x10\x05" + field(2, varint(6) + varint((1 << 64) - 1)) + field(3, b"\xff")
    found = decode(memoryview(data), SCHEMA, Budget())
    assert numbers(found["many"], 3, Budget()) == [5, 6, -1]
    assert found["text"] == ["\udcff"]
    with pytest.raises(WireError, match="more than 2 numbers"):
        numbers(found["many"], 2, Budget())
    with pytest.raises(WireError, match="in the middle of one"):
        numbers([Packed(wire.FLOAT, memoryview(b"12345"))], 3, Budget())


def test_fields_at_the_limit_and_above() -> None:
    decode(memoryview(b"\x10\x01" * 10), SCHEMA, Budget(10))
    with pytest.raises(WireError, match="more than 2000000 fields"):
        decode(memoryview(b"\x10\x01" * 11), SCHEMA, Budget(10))
    assert len(numbers([1] * 10, 10, Budget(10))) == 10
    with pytest.raises(WireError, match="more than 2000000 fields"):
        numbers([1] * 11, 11, Budget(10))


def with_initializer(tensor: TensorProto) -> bytes:
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()


def test_dimensions_at_the_limit_and_above() -> None:
    tensor = numpy_helper.from_array(np.ones((1,) * onnx_reader.MAX_RANK, np.float32), "t")
    read_onnx(with_initializer(tensor))
    tensor.dims.append(1)
    with pytest.raises(WireError, match="more than 16 numbers"):
        read_onnx(with_initializer(tensor))
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "t")
    for wrong in (-1, 1 << 40):
        tensor.dims[0] = wrong
        with pytest.raises(WireError, match="has type 1 and shape"):
            read_onnx(with_initializer(tensor))


def test_attribute_lists_at_the_limit_and_above() -> None:
    def of(count: int) -> bytes:
        node = helper.make_node("Pad", ["x"], ["y"], pads=[1] * count)
        return helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString()

    read_onnx(of(onnx_reader.MAX_LIST))
    with pytest.raises(WireError, match="more than 65536 numbers"):
        read_onnx(of(onnx_reader.MAX_LIST + 1))


def test_a_graph_or_a_metadata_key_given_twice_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    proto = tiny(tmp_path_factory)
    data = proto.SerializeToString()
    with pytest.raises(WireError, match="'graph' is given twice"):
        read_onnx(data + field(7, proto.graph.SerializeToString()))
    proto.metadata_props.append(proto.metadata_props[0])
    with pytest.raises(WireError, match=r"metadata key '.*' is given twice"):
        read_onnx(proto.SerializeToString())
    proto = tiny(tmp_path_factory)
    proto.graph.initializer.append(proto.graph.initializer[0])
    with pytest.raises(WireError, match="two initializers have one name"):
        read_onnx(proto.SerializeToString())


def test_ten_thousand_nested_graphs_cost_one_level() -> None:
    graph = b""
    for _ in range(10_000):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    data = field(7, graph) + field(8, field(1, b""))
    assert len(read_onnx(data).graph.nodes) == 1
    with pytest.raises(UsageError, match="nested more than 8 deep"):
        check_model(data, "m", POLICIES["relaxed"])
