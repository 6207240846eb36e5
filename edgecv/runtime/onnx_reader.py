"""An ONNX file's graph, read without ``onnx``: what the policy must see and nothing else.

Field numbers are those of onnx.proto (github.com/onnx/onnx, version 1.23). Weights stay where they are: a tensor keeps
a view of the file's bytes. Subgraphs are kept as bytes, and read when someone asks for them.
"""

from typing import Any

from edgecv.runtime.onnx_records import Attribute, Graph, Node, OnnxModel, Tensor, Value
from edgecv.runtime.wire import (
    BYTES,
    DOUBLE,
    FLOAT,
    INT,
    MESSAGE,
    TEXT,
    Budget,
    Field,
    WireError,
    decode,
    numbers,
)

MAX_RANK = 16
MAX_LIST = 65_536
"""Numbers of one attribute or dimensions list; weights are not kept in either."""

_MODEL = {
    1: Field("ir_version", INT), 4: Field("domain", TEXT), 7: Field("graph", MESSAGE),
    8: Field("opset_import", MESSAGE, True), 14: Field("metadata_props", MESSAGE, True),
    20: Field("training_info", MESSAGE, True), 25: Field("functions", MESSAGE, True),
}  # fmt: skip
_OPSET = {1: Field("domain", TEXT), 2: Field("version", INT)}
_FUNCTION = {1: Field("name", TEXT), 7: Field("node", MESSAGE, True), 10: Field("domain", TEXT)}
_GRAPH = {
    1: Field("node", MESSAGE, True), 5: Field("initializer", MESSAGE, True), 11: Field("input", MESSAGE, True),
    12: Field("output", MESSAGE, True), 15: Field("sparse_initializer", MESSAGE, True),
}  # fmt: skip
_NODE = {
    1: Field("input", TEXT, True), 2: Field("output", TEXT, True), 3: Field("name", TEXT), 4: Field("op_type", TEXT),
    5: Field("attribute", MESSAGE, True), 7: Field("domain", TEXT),
}  # fmt: skip
_ATTRIBUTE = {
    1: Field("name", TEXT), 2: Field("f", FLOAT), 3: Field("i", INT), 4: Field("s", BYTES), 5: Field("t", MESSAGE),
    6: Field("g", MESSAGE), 7: Field("floats", FLOAT, True), 8: Field("ints", INT, True),
    10: Field("tensors", MESSAGE, True), 11: Field("graphs", MESSAGE, True), 20: Field("type", INT),
    21: Field("ref_attr_name", TEXT), 22: Field("sparse_tensor", MESSAGE), 23: Field("sparse_tensors", MESSAGE, True),
}  # fmt: skip
_TENSOR = {
    1: Field("dims", INT, True), 2: Field("data_type", INT), 3: Field("segment", MESSAGE),
    4: Field("float_data", FLOAT, True), 5: Field("int32_data", INT, True), 6: Field("string_data", BYTES, True),
    7: Field("int64_data", INT, True), 8: Field("name", TEXT), 9: Field("raw_data", BYTES),
    10: Field("double_data", DOUBLE, True), 11: Field("uint64_data", INT, True),
    13: Field("external_data", MESSAGE, True), 14: Field("data_location", INT),
}  # fmt: skip
_VALUE_INFO = {1: Field("name", TEXT), 2: Field("type", MESSAGE)}
_TYPE = {1: Field("tensor_type", MESSAGE)}
_TENSOR_TYPE = {1: Field("elem_type", INT), 2: Field("shape", MESSAGE)}
_SHAPE = {1: Field("dim", MESSAGE, True)}
_DIMENSION = {1: Field("dim_value", INT), 2: Field("dim_param", TEXT)}
_ENTRY = {1: Field("key", TEXT), 2: Field("value", TEXT)}


def read_onnx(data: bytes) -> OnnxModel:
    """Read an ONNX file's structure.

    Raises:
        WireError: Not an ONNX file, truncated, or over a limit of :mod:`edgecv.runtime.wire`.
    """
    budget = Budget()
    model = decode(memoryview(data), _MODEL, budget)
    if "graph" not in model or "opset_import" not in model:
        raise WireError("it holds no graph or no opset")
    opsets = {}
    for message in model["opset_import"]:
        found = decode(message, _OPSET, budget)
        opsets[_domain(_one(found, "domain", ""))] = _one(found, "version", 0)
    metadata = {}
    for message in model.get("metadata_props", ()):
        found = decode(message, _ENTRY, budget)
        key = _one(found, "key", "")
        if key in metadata:
            raise WireError(f"the metadata key '{key[:40]}' is given twice")
        metadata[key] = _one(found, "value", "")
    functions = {}
    for message in model.get("functions", ()):
        found = decode(message, _FUNCTION, budget)
        title = f"{_domain(_one(found, 'domain', ''))}:{_one(found, 'name', '')}"
        functions[title] = tuple(_node(n, budget) for n in found.get("node", ()))
    graph = read_graph(model["graph"][0], budget)
    return OnnxModel(graph, opsets, metadata, functions, "training_info" in model, budget)


def read_graph(data: memoryview, budget: Budget) -> Graph:
    """Read a graph, its own subgraphs left as bytes."""
    found = decode(data, _GRAPH, budget)
    tensors = [_tensor(t, budget) for t in found.get("initializer", ())]
    initializers = {t.name: t for t in tensors}
    if len(initializers) != len(tensors):
        raise WireError("two initializers have one name")
    return Graph(
        nodes=tuple(_node(n, budget) for n in found.get("node", ())),
        initializers=initializers,
        inputs=tuple(_value_info(v, budget) for v in found.get("input", ())),
        outputs=tuple(_value_info(v, budget) for v in found.get("output", ())),
        sparse="sparse_initializer" in found,
    )


def _node(data: memoryview, budget: Budget) -> Node:
    found = decode(data, _NODE, budget)
    attributes: dict[str, Attribute] = {}
    for message in found.get("attribute", ()):
        attribute = _attribute(message, budget)
        if attribute.name in attributes:
            raise WireError(f"a node has the attribute '{attribute.name[:40]}' twice")
        attributes[attribute.name] = attribute
    return Node(
        name=_one(found, "name", ""),
        op=_one(found, "op_type", ""),
        domain=_domain(_one(found, "domain", "")),
        inputs=tuple(found.get("input", ())),
        outputs=tuple(found.get("output", ())),
        attributes=attributes,
    )


def _attribute(data: memoryview, budget: Budget) -> Attribute:
    found = decode(data, _ATTRIBUTE, budget)
    text = _one(found, "s", None)
    return Attribute(
        name=_one(found, "name", ""),
        i=_one(found, "i", None),
        f=_one(found, "f", None),
        s=None if text is None else bytes(text[:MAX_LIST]),
        ints=tuple(numbers(found.get("ints", []), MAX_LIST, budget)),
        floats=tuple(numbers(found.get("floats", []), MAX_LIST, budget)),
        tensors=tuple(_tensor(t, budget) for key in ("t", "tensors") for t in found.get(key, ())),
        graphs=(*found.get("g", ()), *found.get("graphs", ())),
        sparse="sparse_tensor" in found or "sparse_tensors" in found,
    )


def _tensor(data: memoryview, budget: Budget) -> Tensor:
    found = decode(data, _TENSOR, budget)
    dims = tuple(numbers(found.get("dims", []), MAX_RANK, budget))
    kind = _one(found, "data_type", 0)
    if any(not 0 <= d < 1 << 40 for d in dims) or not 0 <= kind < 1 << 16:
        raise WireError(f"a tensor has type {kind} and shape {dims}")
    if "segment" in found:
        raise WireError("a tensor is split into segments")
    location = None
    if found.get("external_data") or _one(found, "data_location", 0):
        entries = [decode(e, _ENTRY, budget) for e in found.get("external_data", ())]
        places = [_one(e, "value", "") for e in entries if _one(e, "key", "") == "location"]
        if len(places) > 1:
            raise WireError("a tensor is kept in two places")
        location = places[0] if places else ""
    return Tensor(
        name=_one(found, "name", ""),
        dims=dims,
        type=kind,
        raw=_one(found, "raw_data", None),
        lists={k: found[k] for k in found if k.endswith("_data") and k not in ("raw_data", "external_data")},
        location=location,
    )


def _value_info(data: memoryview, budget: Budget) -> Value:
    found = decode(data, _VALUE_INFO, budget)
    name = _one(found, "name", "")
    kind = decode(found["type"][0], _TYPE, budget) if "type" in found else {}
    if "tensor_type" not in kind:
        return Value(name, 0, None)
    tensor = decode(kind["tensor_type"][0], _TENSOR_TYPE, budget)
    if "shape" not in tensor:
        return Value(name, _one(tensor, "elem_type", 0), None)
    dims = decode(tensor["shape"][0], _SHAPE, budget).get("dim", [])
    if len(dims) > MAX_RANK:
        raise WireError(f"'{name[:40]}' has {len(dims)} dimensions")
    shape = tuple(_one(decode(d, _DIMENSION, budget), "dim_value", -1) for d in dims)
    return Value(name, _one(tensor, "elem_type", 0), shape)


def _one(found: dict[str, list[Any]], key: str, default: Any) -> Any:
    return found[key][0] if key in found else default


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
