"""An ONNX file's graph as plain values: what the policy must see and nothing else."""

from dataclasses import dataclass, field

from edgecv.runtime.wire import Budget, Packed


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant.

    Attributes:
        name: Empty for a node's attribute.
        dims: Shape.
        type: ``TensorProto.DataType``.
        raw: ``raw_data``; None when the typed lists hold the values.
        lists: ``float_data``, ``int32_data``, … as they were found.
        location: Where the bytes are kept outside the file (``location`` of the external data); None inside.
    """

    name: str
    dims: tuple[int, ...]
    type: int
    raw: memoryview | None
    lists: dict[str, list[int | float | Packed]]
    location: str | None


@dataclass(frozen=True, slots=True)
class Attribute:
    """A node's attribute; every value it holds, whatever its ``type`` claims."""

    name: str
    i: int | None = None
    f: float | None = None
    s: bytes | None = None
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    graphs: tuple[memoryview, ...] = ()
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]

    @property
    def title(self) -> str:
        """What a message calls it."""
        return self.name or (self.outputs[0] if self.outputs else "") or self.op


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: element type (0 when it is no tensor) and shape (None: unknown; -1: an open dimension)."""

    name: str
    type: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph or subgraph."""

    nodes: tuple[Node, ...]
    initializers: dict[str, Tensor]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sparse: bool


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A whole file; ``functions`` are the nodes of each model-local function by ``domain:name``."""

    graph: Graph
    opsets: dict[str, int]
    metadata: dict[str, str]
    functions: dict[str, tuple[Node, ...]]
    has_training: bool
    budget: Budget = field(repr=False)
