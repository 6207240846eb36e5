"""The rules of the policy for one tensor or one node; :mod:`edgecv.runtime.policy` applies them to a file."""

from typing import TYPE_CHECKING

import numpy as np

from edgecv.runtime.graph_facts import Facts
from edgecv.runtime.onnx_records import Node, Tensor
from edgecv.runtime.operators import CONTROL_FLOW, OPERATORS, POSITIVE_ATTRIBUTES, SCALES
from edgecv.runtime.tensor_values import FLOATS, check_size, flaw, small_values

if TYPE_CHECKING:
    from edgecv.runtime.policy import Policy

MAX_ATTRIBUTE_VALUE = 1 << 24
_MAX_DIVISORS = 1 << 20

_ZERO_MEANS_NONE = {"DequantizeLinear": "block_size", "QuantizeLinear": "block_size", "RotaryEmbedding": "num_heads"}


class RefusedError(ValueError):
    """A rule is broken; ``always`` when every policy has it."""

    def __init__(self, why: str, *, always: bool = False) -> None:
        super().__init__(why)
        self.always = always


def check_tensor(tensor: Tensor, policy: "Policy", *, main: bool) -> None:
    """Check where a tensor's bytes are and how many; only initializers of the main graph may be in another file."""
    if tensor.location is not None:
        if not policy.external:
            raise RefusedError(f"it keeps the weight '{shown_name(tensor.name)}' outside the file")
        if not main:
            raise RefusedError(
                f"it keeps the tensor '{shown_name(tensor.name)}' of a node outside the file", always=True
            )
    check_size(tensor)


def check_node(node: Node, policy: "Policy") -> None:
    """Check a node's operator and attributes."""
    allowed = OPERATORS.get(node.domain, frozenset())
    branch = policy.branches and node.op == "If" and node.domain == ""
    if not (policy.anything or branch or node.op in allowed):
        domain = f"{node.domain}." if node.domain else ""
        why = "control flow" if node.op in CONTROL_FLOW else "not on the list of operators for vision"
        raise RefusedError(f"{where(node)} is {shown_name(domain + node.op)}, {why}")
    for attribute in node.attributes.values():
        if attribute.graphs and not (branch or policy.anything):
            raise RefusedError(f"{where(node)} holds a graph in its attribute '{shown_name(attribute.name)}'")
        if attribute.sparse and not policy.anything:
            raise RefusedError(f"{where(node)} holds a sparse tensor")
        for tensor in attribute.tensors:
            check_tensor(tensor, policy, main=False)
        if attribute.name in POSITIVE_ATTRIBUTES and node.domain in OPERATORS:
            _check_positive(node, attribute.name, attribute.i, attribute.ints)
    pads = node.attributes.get("pads")
    if pads is not None and any(abs(p) > MAX_ATTRIBUTE_VALUE for p in pads.ints):
        raise RefusedError(f"{where(node)} pads by more than {MAX_ATTRIBUTE_VALUE}", always=True)


def _check_positive(node: Node, name: str, single: int | None, several: tuple[int, ...]) -> None:
    if single == 0 and _ZERO_MEANS_NONE.get(node.op) == name:
        return
    for value in (*several, *(() if single is None else (single,))):
        if not 1 <= value <= MAX_ATTRIBUTE_VALUE:
            raise RefusedError(f"{where(node)} has {name} {value}, not 1 to {MAX_ATTRIBUTE_VALUE}", always=True)


def check_divisor(node: Node, facts: Facts, policy: "Policy", looked_at: set[str]) -> None:
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
        raise RefusedError(f"{where(node)} divides whole numbers by what is not a constant")
    if known.dtype.kind != "f" and bool(np.isin(known, (0, -1)).any()):
        raise RefusedError(f"{where(node)} divides whole numbers by 0 or -1, which ends the process", always=True)
    looked_at.add(f"divisor {divisor}")


def infinite_constants(facts: Facts) -> set[str]:
    """Return the constants that hold infinity; raise for one that holds NaN."""
    found = set()
    for name, tensor in facts.constants.maps[0].items():  # those of the graph around it had their turn
        kind = flaw(tensor)
        if kind == "nan":
            raise RefusedError(f"the weight '{shown_name(name)}' holds NaN")
        if kind == "inf":
            found.add(name)
    return found


def check_scales(node: Node, facts: Facts, looked_at: set[str]) -> None:
    """Refuse constant scales that are not finite and above 0."""
    for index in SCALES.get(node.op, ()):
        if index >= len(node.inputs):
            return
        name = node.inputs[index]
        tensor = facts.constants.get(name)
        if tensor is None or f"scale {name}" in looked_at:
            continue
        values = small_values(tensor, _MAX_DIVISORS)
        if values is not None and not bool(np.all((values > 0) & np.isfinite(values))):
            raise RefusedError(f"the scale '{shown_name(tensor.name)}' of {where(node)} is not finite and above 0")
        looked_at.add(f"scale {name}")


def where(node: Node) -> str:
    """Return what messages call a node."""
    return f"node '{shown_name(node.title)}'"


def shown_name(text: str) -> str:
    """Return a name from a file as messages show it."""
    short = "".join(c if c.isprintable() else "?" for c in text[:60])
    return short if len(text) <= 60 else f"{short}…"
