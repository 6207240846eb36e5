"""ReduceMean over height and width becomes GlobalAveragePool, which has an int8 kernel and a faster float one."""

import onnx_ir as ir

from edgecv.graph.values import constant_array, make_node, replace_node


def reduce_mean_to_global_pool(model: ir.Model) -> int:
    """Rewrite every ReduceMean over exactly the two last axes of an ``(N, C, H, W)`` value; return how many.

    Exact: both are the plain mean. With ``keepdims=0`` a Flatten to ``(N, C)`` follows.
    ONNX Runtime has QLinearGlobalAveragePool and no quantized ReduceMean.
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type == "ReduceMean" and node.domain == "" and _is_spatial_mean(node):
            _rewrite(model.graph, node)
            rewritten += 1
    return rewritten


def _is_spatial_mean(node: ir.Node) -> bool:
    source = node.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4:
        return False
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    elif len(node.inputs) > 1 and (array := constant_array(node.inputs[1])) is not None:
        axes = [int(a) for a in array.ravel()]
    else:
        return False
    return sorted(a % 4 for a in axes) == [2, 3]


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None  # checked by _is_spatial_mean
    keep = "keepdims" not in node.attributes or bool(node.attributes["keepdims"].as_int())
    if keep:
        replace_node(graph, node, make_node("GlobalAveragePool", [source], "pool"))
        return
    assert source.shape is not None
    shape = [source.shape[0], source.shape[1], 1, 1]
    pool = make_node("GlobalAveragePool", [source], f"{node.outputs[0].name}_pooled", dtype=source.dtype, shape=shape)
    graph.insert_before(node, pool)
    replace_node(graph, node, make_node("Flatten", [pool.outputs[0]], "flat", axis=1))
