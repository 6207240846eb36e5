"""What a model file may hold before ONNX Runtime sees a byte of it; the numbers are the table in ARCHITECTURE.md.

ONNX Runtime takes a file at its word: measured with 1.31, an integer division by zero ends the process, an unbounded
Loop never ends, and weights of a model given as bytes are read from the working directory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgecv.errors import UsageError, nearest
from edgecv.runtime.graph_facts import Facts, graph_facts
from edgecv.runtime.onnx_reader import Graph, Node, OnnxModel, Tensor, read_graph, read_onnx
from edgecv.runtime.operators import CONTROL_FLOW, MULTIPLIES, OPERATORS, POSITIVE_ATTRIBUTES, SCALES
from edgecv.runtime.tensor_values import FLOATS, check_size, flaw, small_values
from edgecv.runtime.wire import WireError

MAX_NODES = 50_000
"""Nodes of a graph with its subgraphs; the largest of timm's networks have 8,000, quantized 20,000."""
MAX_INITIALIZERS = 50_000
MAX_ACTIVATION_BYTES = 1 << 30
"""Estimated peak of what lives at one time, for one image or the fixed batch."""
MAX_GRAPH_DEPTH = 8
MAX_ATTRIBUTE_VALUE = 1 << 24
_MAX_DIVISORS = 1 << 20

_ZERO_MEANS_NONE = {"DequantizeLinear": "block_size", "QuantizeLinear": "block_size", "RotaryEmbedding": "num_heads"}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a file may do.

    Attributes:
        name: As options name it.
        external: Keep weights in files of the model's own folder.
        branches: Hold ``If``, whose two graphs run at most once.
        anything: Hold loops, functions, foreign operators, weights and sizes of any kind: the file is the user's own.
            What ends the process, and reading outside the folder, stays refused.
    """

    name: str
    external: bool = False
    branches: bool = False
    anything: bool = False


POLICIES: dict[str, Policy] = {
    "strict": Policy("strict"),
    "standard": Policy("standard", external=True, branches=True),
    "relaxed": Policy("relaxed", external=True, branches=True, anything=True),
}
"""``strict`` for packages and ``Model.load``, ``standard`` for files named on the command line, ``relaxed`` for one's
own files by explicit option."""


def find_policy(name: str) -> Policy:
    """Return a policy by name.

    Raises:
        UsageError: Unknown name.
    """
    if name not in POLICIES:
        raise UsageError(f"no policy '{name}'.{nearest(str(name), POLICIES)} Known: {', '.join(POLICIES)}.")
    return POLICIES[name]


class _RefusedError(ValueError):
    def __init__(self, why: str, *, always: bool = False) -> None:
        super().__init__(why)
        self.always = always  # under every policy


def check_model(
    data: bytes,
    name: str,
    policy: Policy,
    image_size: Callable[[dict[str, str]], tuple[int, int] | None] = lambda metadata: None,
) -> OnnxModel:
    """Check the bytes of an ONNX file against a policy; make the session from the same bytes.

    Args:
        data: The file.
        name: The file's name, for messages.
        policy: One of :data:`POLICIES`.
        image_size: Given the metadata, (height, width) a graph with open sizes will be run at; for the estimate of
            memory.

    Returns:
        The file's structure.

    Raises:
        UsageError: Not an ONNX file, or one that the policy does not allow; the message says which rule.
    """
    try:
        model = read_onnx(data)
        _check(model, policy, image_size(model.metadata))
    except WireError as e:
        raise UsageError(
            f"model '{name}' is not an ONNX file or is truncated ({e}); export it again or fetch it again."
        ) from e
    except _RefusedError as e:
        hint = "" if policy.anything or e.always else "; if it is your own, add --trust (in Python policy='relaxed')"
        raise UsageError(f"model '{name}' is refused: {e}{hint}.") from e
    return model


def _check(model: OnnxModel, policy: Policy, image_size: tuple[int, int] | None) -> None:
    if not policy.anything:
        if model.functions:
            raise _RefusedError(f"it defines {len(model.functions)} functions of its own")
        if model.has_training:
            raise _RefusedError("it holds training steps")
        if unknown := sorted(d for d in model.opsets if d not in OPERATORS and d != "ai.onnx.ml"):
            used = {n.domain for n in model.graph.nodes}
            if alien := [d for d in unknown if d in used]:
                raise _RefusedError(f"it needs operators of the domain '{_shown(alien[0])}'")
    nodes = 0
    for graph, depth in _graphs(model):
        nodes += len(graph.nodes)
        if nodes > MAX_NODES:
            raise _RefusedError(f"it has more than {MAX_NODES} nodes", always=True)
        if len(graph.initializers) > MAX_INITIALIZERS:
            raise _RefusedError(f"it has more than {MAX_INITIALIZERS} initializers", always=True)
        if graph.sparse and not policy.anything:
            raise _RefusedError("it holds sparse tensors")
        _check_graph(graph, depth, policy, image_size)
    for nodes_of in model.functions.values():
        _check_graph(Graph(nodes_of, {}, (), (), False), 1, policy, image_size)


def _graphs(model: OnnxModel) -> Iterator[tuple[Graph, int]]:
    """Yield the main graph and all subgraphs with their depth; subgraphs are read when their turn comes."""
    waiting = [(model.graph, 0)]
    waiting += [(Graph(nodes, {}, (), (), False), 1) for nodes in model.functions.values()]
    while waiting:
        graph, depth = waiting.pop()
        yield graph, depth
        for node in graph.nodes:
            for attribute in node.attributes.values():
                if attribute.graphs and depth >= MAX_GRAPH_DEPTH:
                    raise _RefusedError(f"its graphs are nested more than {MAX_GRAPH_DEPTH} deep", always=True)
                waiting += [(read_graph(g, model.budget), depth + 1) for g in attribute.graphs]


def _check_graph(graph: Graph, depth: int, policy: Policy, image_size: tuple[int, int] | None) -> None:
    for tensor in graph.initializers.values():
        _check_tensor(tensor, policy, main=depth == 0)
    for node in graph.nodes:
        _check_node(node, policy)
    facts = graph_facts(graph, image_size)
    infinite = set() if policy.anything else _infinite(facts)
    looked_at: set[str] = set()  # divisors and scales found good: many nodes may share a large one
    for node in graph.nodes:
        if node.op in ("Div", "Mod"):
            _check_divisor(node, facts, policy, looked_at)
        if not policy.anything:
            _check_scales(node, facts, looked_at)
            if node.op in MULTIPLIES and (bad := next((n for n in node.inputs if n in infinite), None)):
                raise _RefusedError(f"the weight '{_shown(bad)}' of {_where(node)} holds infinity")
    if facts.peak_bytes > MAX_ACTIVATION_BYTES and not policy.anything:
        mib = facts.peak_bytes / (1 << 20)
        raise _RefusedError(
            f"it needs about {mib:.0f} MiB for activations at '{_shown(facts.peak_node)}', "
            f"over the limit of {MAX_ACTIVATION_BYTES >> 20}"
        )


def _check_tensor(tensor: Tensor, policy: Policy, *, main: bool) -> None:
    if tensor.location is not None:
        if not policy.external:
            raise _RefusedError(f"it keeps the weight '{_shown(tensor.name)}' outside the file")
        if not main:
            raise _RefusedError(f"it keeps the tensor '{_shown(tensor.name)}' of a node outside the file", always=True)
    check_size(tensor)


def _check_node(node: Node, policy: Policy) -> None:
    allowed = OPERATORS.get(node.domain, frozenset())
    branch = policy.branches and node.op == "If" and node.domain == ""
    if not (policy.anything or branch or node.op in allowed):
        domain = f"{node.domain}." if node.domain else ""
        why = "control flow" if node.op in CONTROL_FLOW else "not on the list of operators for vision"
        raise _RefusedError(f"{_where(node)} is {_shown(domain + node.op)}, {why}")
    for attribute in node.attributes.values():
        if attribute.graphs and not (branch or policy.anything):
            raise _RefusedError(f"{_where(node)} holds a graph in its attribute '{_shown(attribute.name)}'")
        if attribute.sparse and not policy.anything:
            raise _RefusedError(f"{_where(node)} holds a sparse tensor")
        for tensor in attribute.tensors:
            _check_tensor(tensor, policy, main=False)
        if attribute.name in POSITIVE_ATTRIBUTES and node.domain in OPERATORS:
            _check_positive(node, attribute.name, attribute.i, attribute.ints)
    pads = node.attributes.get("pads")
    if pads is not None and any(abs(p) > MAX_ATTRIBUTE_VALUE for p in pads.ints):
        raise _RefusedError(f"{_where(node)} pads by more than {MAX_ATTRIBUTE_VALUE}", always=True)


def _check_positive(node: Node, name: str, single: int | None, several: tuple[int, ...]) -> None:
    if single == 0 and _ZERO_MEANS_NONE.get(node.op) == name:
        return
    for value in (*several, *(() if single is None else (single,))):
        if not 1 <= value <= MAX_ATTRIBUTE_VALUE:
            raise _RefusedError(f"{_where(node)} has {name} {value}, not 1 to {MAX_ATTRIBUTE_VALUE}", always=True)


def _check_divisor(node: Node, facts: Facts, policy: Policy, looked_at: set[str]) -> None:
    """Refuse whole-number divisions by 0, or by -1, whose quotient may be out of range: SIGFPE in ONNX Runtime."""
    kinds = {facts.types.get(name, 0) for name in node.inputs[:2]}
    if kinds & FLOATS or len(node.inputs) < 2:
        return
    divisor = node.inputs[1]
    if f"divisor {divisor}" in looked_at:
        return
    known = facts.values.get(divisor)
    if divisor in facts.varying:
        known = None
    if known is None and divisor in facts.constants:
        known = small_values(facts.constants[divisor], _MAX_DIVISORS)
    if known is None:
        if policy.anything:
            return
        raise _RefusedError(f"{_where(node)} divides whole numbers by what is not a constant")
    if known.dtype.kind != "f" and bool(np.isin(known, (0, -1)).any()):
        raise _RefusedError(f"{_where(node)} divides whole numbers by 0 or -1, which ends the process", always=True)
    looked_at.add(f"divisor {divisor}")


def _infinite(facts: Facts) -> set[str]:
    """Return the constants that hold infinity; raise for one that holds NaN."""
    found = set()
    for name, tensor in facts.constants.items():
        kind = flaw(tensor)
        if kind == "nan":
            raise _RefusedError(f"the weight '{_shown(name)}' holds NaN")
        if kind == "inf":
            found.add(name)
    return found


def _check_scales(node: Node, facts: Facts, looked_at: set[str]) -> None:
    for index in SCALES.get(node.op, ()):
        if index >= len(node.inputs):
            return
        name = node.inputs[index]
        tensor = facts.constants.get(name)
        if tensor is None or f"scale {name}" in looked_at:
            continue
        values = small_values(tensor, _MAX_DIVISORS)
        if values is not None and not bool(np.all((values > 0) & np.isfinite(values))):
            raise _RefusedError(f"the scale '{_shown(tensor.name)}' of {_where(node)} is not finite and above 0")
        looked_at.add(f"scale {name}")


def _where(node: Node) -> str:
    return f"node '{_shown(node.title)}'"


def _shown(text: str) -> str:
    short = "".join(c if c.isprintable() else "?" for c in text[:60])
    return short if len(text) <= 60 else f"{short}…"
