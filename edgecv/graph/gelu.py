"""GELU written in the order that ONNX Runtime knows, so that it becomes one operator at any opset."""

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array, make_node, replace_node, unique_name


def order_gelu(model: ir.Model) -> int:
    """Write ``x · (½ · (1 + erf(x / √2)))`` as ``(x · (1 + erf(x / √2))) · ½``; return how many were found.

    Exact: a product with ½ rounds nothing. PyTorch's exporter writes the first form below opset 20; ONNX Runtime fuses
    only the second, and ``½ · x`` first (``onnxruntime/core/optimizer/gelu_fusion.cc``).
    """
    graph = model.graph
    ordered = 0
    for node in list(graph):
        found = _halved(node)
        if found is None:
            continue
        half, source, inner, number = found
        shape = None if source.shape is None else list(source.shape)
        name = unique_name(graph, f"{node.outputs[0].name}_doubled")
        double = make_node("Mul", [source, inner], name, dtype=source.dtype, shape=shape)
        graph.insert_before(node, double)
        replace_node(graph, node, make_node("Mul", [double.outputs[0], number], "gelu"))
        graph.remove(half, safe=True)
        ordered += 1
    return ordered


def _halved(node: ir.Node) -> tuple[ir.Node, ir.Value, ir.Value, ir.Value] | None:
    """Match ``x · (½ · (1 + erf(x / √2)))``; return the inner Mul, x, the sum and the value that holds ½."""
    if node.op_type != "Mul" or node.domain:
        return None
    for index in (0, 1):
        source, factor = node.inputs[1 - index], node.inputs[index]
        half = None if factor is None else factor.producer()
        if half is None or factor is None or source is None or half.op_type != "Mul" or len(factor.uses()) != 1:
            continue
        numbers = [v for v in half.inputs if _is_number(v, 0.5)]
        sums = [v for v in half.inputs if v is not None and _reads_erf_of(v, source)]
        if len(numbers) == 1 and len(sums) == 1 and numbers[0] is not None and not factor.is_graph_output():
            return half, source, sums[0], numbers[0]
    return None


def _reads_erf_of(value: ir.Value, source: ir.Value) -> bool:
    """Tell whether ``value`` is ``1 + erf(source / √2)``."""
    add = value.producer()
    if add is None or add.op_type != "Add" or not any(_is_number(v, 1.0) for v in add.inputs):
        return False
    erfs = [v.producer() for v in add.inputs if v is not None and v.producer() is not None]
    if len(erfs) != 1 or erfs[0] is None or erfs[0].op_type != "Erf" or erfs[0].inputs[0] is None:
        return False
    scaled = erfs[0].inputs[0].producer()
    if scaled is None or source not in scaled.inputs:
        return False
    root = {"Div": float(np.sqrt(2)), "Mul": float(np.sqrt(0.5))}.get(scaled.op_type)
    return root is not None and _is_number(scaled.inputs[1], root)


def _is_number(value: ir.Value | None, number: float) -> bool:
    array = constant_array(value)
    return array is not None and array.size == 1 and abs(float(array.reshape(-1)[0]) - number) < 1e-4
