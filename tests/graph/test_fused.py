from small_graphs import residual_model, small_model

from edgecv.graph.fused import behind
from edgecv.graph.shapes import fixed_shapes


def test_fused_and_renamed_nodes_are_traced_to_their_layers() -> None:
    graph = fixed_shapes(residual_model())
    executed = [("low_nchwc", "Conv"), ("Conv_2_token_7", "QLinearConv"), ("s_nchwc", "Conv"), ("Gemm_9", "Gemm")]
    found = behind(graph, executed)
    assert {name: node.name for name, node in found.items()} == {
        "low_nchwc": "Conv_0", "Conv_2_token_7": "Conv_2", "s_nchwc": "Conv_4", "Gemm_9": "Gemm_9",
    }  # fmt: skip


def test_what_does_not_multiply_and_sum_takes_no_layer() -> None:
    graph = fixed_shapes(small_model("c = Conv(image, w) y = GlobalAveragePool(c)", {"w": (4, 3, 3, 3)}))
    assert not behind(graph, [("y", "GlobalAveragePool"), ("c", "Relu")])
    assert behind(graph, [("y", "GlobalAveragePool"), ("c_nchwc", "Conv")])["c_nchwc"].op_type == "Conv"


def test_a_layer_is_given_to_one_node_only() -> None:
    graph = fixed_shapes(small_model("y = Conv(image, w)", {"w": (4, 3, 3, 3)}))
    assert len(behind(graph, [("y", "Conv"), ("y_nchwc", "Conv")])) == 1
