"""What a model file may hold before ONNX Runtime sees a byte of it; the numbers are the table in ARCHITECTURE.md.

ONNX Runtime takes a file at its word: measured with 1.31, an integer division by zero ends the process, an unbounded
Loop never ends, and weights of a model given as bytes are read from the working directory.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgecv.errors import UsageError, nearest
from edgecv.runtime.graph_facts import Facts, graph_facts
from edgecv.runtime.node_rules import (
    RefusedError,
    check_divisor,
    check_node,
    check_scales,
    check_tensor,
    infinite_constants,
    shown_name,
    where,
)
from edgecv.runtime.onnx_reader import read_graph, read_onnx
from edgecv.runtime.onnx_records import Graph, OnnxModel
from edgecv.runtime.operators import MULTIPLIES, OPERATORS
from edgecv.runtime.wire import WireError

MAX_NODES = 50_000
"""Nodes of a graph with its subgraphs; the largest of timm's networks have 8,000, quantized 20,000."""
MAX_INITIALIZERS = 50_000
MAX_ACTIVATION_BYTES = 1 << 30
"""Estimated peak of what lives at one time, for one image or the fixed batch."""
MAX_GRAPH_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """What a file may do.

    Attributes:
        name: As options name it.
        external: Keep weights in files of the model's own folder.
        branches: Hold ``If``, whose two graphs run at most once, and sizes that depend on values: detectors do.
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
    except RefusedError as e:
        hint = "" if policy.anything or e.always else "; if it is your own, add --trust (in Python policy='relaxed')"
        raise UsageError(f"model '{name}' is refused: {e}{hint}.") from e
    return model


def _check(model: OnnxModel, policy: Policy, image_size: tuple[int, int] | None) -> None:
    if not policy.anything:
        if model.functions:
            raise RefusedError(f"it defines {len(model.functions)} functions of its own")
        if model.has_training:
            raise RefusedError("it holds training steps")
        if unknown := sorted(d for d in model.opsets if d not in OPERATORS and d != "ai.onnx.ml"):
            used = {n.domain for n in model.graph.nodes}
            if alien := [d for d in unknown if d in used]:
                raise RefusedError(f"it needs operators of the domain '{shown_name(alien[0])}'")
    functions = [Graph(nodes, {}, (), (), False) for nodes in model.functions.values()]
    waiting: list[tuple[Graph, int, Facts | None]] = [(graph, 0, None) for graph in (*functions, model.graph)]
    nodes = initializers = 0
    while waiting:  # subgraphs are read when their turn comes
        graph, depth, outer = waiting.pop()
        nodes += len(graph.nodes)
        initializers += len(graph.initializers)
        for count, limit, what in ((nodes, MAX_NODES, "nodes"), (initializers, MAX_INITIALIZERS, "initializers")):
            if count > limit:
                raise RefusedError(f"it has more than {limit} {what}", always=True)
        if depth > MAX_GRAPH_DEPTH:
            raise RefusedError(f"its graphs are nested more than {MAX_GRAPH_DEPTH} deep", always=True)
        if graph.sparse and not policy.anything:
            raise RefusedError("it holds sparse tensors")
        for tensor in graph.initializers.values():
            check_tensor(tensor, policy, main=graph is model.graph)
        for node in graph.nodes:
            check_node(node, policy)
        facts = graph_facts(graph, image_size, outer)
        _check_facts(graph, facts, policy)
        inner = [g for node in graph.nodes for a in node.attributes.values() for g in a.graphs]
        waiting += [(read_graph(g, model.budget), depth + 1, facts) for g in inner]


def _check_facts(graph: Graph, facts: Facts, policy: Policy) -> None:
    infinite = set() if policy.anything else infinite_constants(facts)
    looked_at: set[str] = set()  # divisors and scales found good: many nodes may share a large one
    for node in graph.nodes:
        if node.op in ("Div", "Mod"):
            check_divisor(node, facts, policy, looked_at)
        if not policy.anything:
            check_scales(node, facts, looked_at)
            if node.op in MULTIPLIES and (bad := next((n for n in node.inputs if n in infinite), None)):
                raise RefusedError(f"the weight '{shown_name(bad)}' of {where(node)} holds infinity")
    if facts.unordered and not policy.anything:
        raise RefusedError(f"node '{shown_name(facts.unordered)}' comes before the nodes whose results it takes")
    if facts.unsized and not policy.branches:
        raise RefusedError(f"the size of what node '{shown_name(facts.unsized)}' gives is not known beforehand")
    if facts.peak_bytes > MAX_ACTIVATION_BYTES and not policy.anything:
        mib = facts.peak_bytes / (1 << 20)
        raise RefusedError(
            f"it needs about {mib:.0f} MiB for activations at '{shown_name(facts.peak_node)}', "
            f"over the limit of {MAX_ACTIVATION_BYTES >> 20}"
        )
