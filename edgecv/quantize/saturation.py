"""Which layers of an int8 file can answer otherwise on x86 without VNNI, by their stored weights alone.

The rule and where it was found: :mod:`edgecv.quantize.pair_sums`. The audit is exact about weights and worst-case about
inputs: an activation may take every code its quantizer can write, whatever the calibration images did.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array, int_attribute
from edgecv.quantize.layer_names import INTEGER_OPS, layer_names
from edgecv.quantize.pair_sums import HIGHEST_CODE, LARGEST_SUM, adds_in_pairs, kernel_rows, pair_limit, pair_sums

_BOUNDED_BY_ONE = ("Sigmoid", "HardSigmoid", "Softmax")


@dataclass(frozen=True, slots=True)
class LayerSums:
    """The sums of neighbouring products in one layer.

    Attributes:
        layer: What to call it (:func:`edgecv.quantize.layer_names.layer_names`).
        op_type: Its operator.
        highest_code: Largest activation code its input can hold, as the kernel sees it (signed codes 128 higher).
        worst_sum: The largest sum of two products in magnitude; over 32,767 it is clipped.
        pairs: Pairs of weights.
        pairs_at_risk: Those whose sum can be over.
        channels: Output channels.
        channels_at_risk: Those with such a pair.
    """

    layer: str
    op_type: str
    highest_code: int
    worst_sum: int
    pairs: int
    pairs_at_risk: int
    channels: int
    channels_at_risk: int


@dataclass(frozen=True, slots=True)
class SaturationAudit:
    """The sums of every int8 layer that adds products in pairs.

    Attributes:
        layers: In the order of the graph.
        exact: Further int8 layers, whose kernels do not add in pairs (depthwise convolutions, uint8 weights).
    """

    layers: tuple[LayerSums, ...]
    exact: int

    @property
    def at_risk(self) -> tuple[LayerSums, ...]:
        """The layers that can saturate."""
        return tuple(s for s in self.layers if s.pairs_at_risk)

    def as_dict(self) -> dict[str, Any]:
        """Return totals and the layers under their names."""
        return {
            "limit": LARGEST_SUM,
            "worst_sum": max((s.worst_sum for s in self.layers), default=0),
            "layers": len(self.layers),
            "layers_exact": self.exact,
            "layers_at_risk": len(self.at_risk),
            "channels_at_risk": sum(s.channels_at_risk for s in self.layers),
            "pairs_at_risk": sum(s.pairs_at_risk for s in self.layers),
            "by_layer": [asdict(s) for s in self.layers],
        }


@dataclass(frozen=True, slots=True)
class _Int8Layer:
    node: ir.Node
    codes: np.ndarray
    axis: int
    activation: ir.Value
    between_q_dq: bool


def audit_saturation(model: ir.Model) -> SaturationAudit:
    """Return the worst sums of neighbouring products of every int8 layer of a quantized model.

    Layers are Conv, Gemm and MatMul between DequantizeLinear nodes, and operators on codes. A signed activation between
    Q and DQ counts with 128 added, as ONNX Runtime converts it on x86.
    """
    rows, exact = [], 0
    names = layer_names(model.graph)
    for layer in _int8_layers(model.graph):
        groups = int_attribute(layer.node, "group", 1)
        if layer.codes.dtype != np.int8 or not adds_in_pairs(layer.codes.shape, groups):
            exact += 1
            continue
        highest = _highest_code(layer)
        sums = np.abs(pair_sums(kernel_rows(layer.codes, layer.axis)))
        over = sums > pair_limit(highest)
        rows.append(
            LayerSums(
                layer=names.get(layer.node, str(layer.node.name)),
                op_type=layer.node.op_type,
                highest_code=highest,
                worst_sum=int(sums.max(initial=0)) * highest,
                pairs=sums.size,
                pairs_at_risk=int(over.sum()),
                channels=len(sums),
                channels_at_risk=int(over.any(axis=1).sum()),
            )
        )
    return SaturationAudit(tuple(rows), exact)


def describe_audit(audit: SaturationAudit) -> str:
    """Return the one line for people."""
    if not audit.layers and not audit.exact:
        return "saturation on x86 without VNNI: none, the model has no int8 layer"
    if not audit.at_risk:
        return "saturation on x86 without VNNI: none, no pair of weights can exceed 16 bits"
    risk = audit.at_risk
    worst = max(risk, key=lambda s: s.worst_sum)
    return (
        f"saturation on x86 without VNNI: {len(risk)} of {len(audit.layers)} layers can clip sums to 16 bits "
        f"({sum(s.channels_at_risk for s in risk)} channels; worst {worst.worst_sum} in '{worst.layer}'): the file may "
        "answer otherwise there"
    )


def _int8_layers(graph: ir.Graph) -> Iterator[_Int8Layer]:
    for node in graph.all_nodes():
        if node.op_type in ("Conv", "Gemm", "MatMul") and not node.domain:
            codes, activation = _dequantized(node.inputs[1]), _dequantized(node.inputs[0])
            array = None if codes is None else constant_array(codes)
            # activations of 16 bits are computed in float
            if array is not None and activation is not None and _code_type(node.inputs[0]).itemsize == 1:
                yield _Int8Layer(node, array, _output_axis(node), activation, True)
        elif node.op_type in INTEGER_OPS and node.inputs[0] is not None:
            array = constant_array(node.inputs[INTEGER_OPS[node.op_type]])
            if array is not None:
                yield _Int8Layer(node, array, _output_axis(node), node.inputs[0], False)


def _output_axis(node: ir.Node) -> int:
    return 0 if node.op_type in ("Conv", "QLinearConv") or int_attribute(node, "transB", 0) else 1


def _dequantized(value: ir.Value | None) -> ir.Value | None:
    """Return the codes behind a DequantizeLinear, or None."""
    producer = None if value is None else value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "DequantizeLinear" else None


def _code_type(value: ir.Value | None) -> np.dtype[np.generic]:
    """Return the type of the codes behind a DequantizeLinear: that of its zero point, uint8 without one."""
    dequantize = None if value is None else value.producer()
    zero = None if dequantize is None or len(dequantize.inputs) < 3 else constant_array(dequantize.inputs[2])
    return np.dtype(np.uint8) if zero is None else zero.dtype


def _highest_code(layer: _Int8Layer) -> int:
    """Return the largest code of a layer's input: less than 255 where an upper bound is quantized below it."""
    quantize = layer.activation.producer()
    between_q_dq = layer.between_q_dq
    signed = _code_type(layer.node.inputs[0]) == np.int8 if between_q_dq else layer.activation.dtype == ir.DataType.INT8
    offset = 128 if signed and between_q_dq else 0
    top = 127 if signed else HIGHEST_CODE
    if quantize is not None and quantize.op_type == "QuantizeLinear" and len(quantize.inputs) > 2:
        bound = _upper_bound(quantize.inputs[0])
        scale, zero = (constant_array(v) for v in quantize.inputs[1:3])
        if bound is not None and scale is not None and zero is not None and scale.size == zero.size == 1:
            code = np.rint(np.float32(bound) / scale.reshape(())) + float(zero.reshape(()))
            top = int(np.clip(code, 0, top))
    return top + offset if signed else top


def _upper_bound(value: ir.Value | None) -> float | None:
    producer = None if value is None else value.producer()
    if producer is None:
        return None
    if producer.op_type in _BOUNDED_BY_ONE:
        return 1.0
    if producer.op_type == "Clip" and len(producer.inputs) > 2:
        high = constant_array(producer.inputs[2])
        return None if high is None else float(high.reshape(-1)[0])
    return None
