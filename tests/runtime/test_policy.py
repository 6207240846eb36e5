"""What a model file may hold: each rule with a file that breaks it, and with one that just keeps it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import UsageError
from edgecv.runtime import node_rules, policy
from edgecv.runtime.policy import POLICIES, check_model, find_policy
from edgecv.runtime.session import open_session

Feed = dict[str, np.ndarray]


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    taken: tuple[int, list[object]] = (TensorProto.FLOAT, [1, 3, 8, 8]),
    given: tuple[int, list[object] | None] = (TensorProto.FLOAT, None),
    domains: tuple[str, ...] = ("",),
) -> onnx.ModelProto:
    """A model from x to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *taken)],
        [helper.make_tensor_value_info("y", *given)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    versions = {"": 18, "com.microsoft": 1}
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(d, versions.get(d, 1)) for d in domains], ir_version=9
    )


def check(proto: onnx.ModelProto, level: str = "strict") -> None:
    check_model(proto.SerializeToString(), "m.onnx", POLICIES[level])


def refuse(proto: onnx.ModelProto, why: str, *, levels: tuple[str, ...] = ("strict", "standard")) -> None:
    """Assert that ``levels`` refuse a model with this reason and the others do not."""
    for level in POLICIES:
        if level in levels:
            with pytest.raises(UsageError, match=why) as e:
                check(proto, level)
            assert "\n" not in str(e.value)
            assert len(str(e.value)) <= 400
            assert "'m.onnx'" in str(e.value)
        else:
            check(proto, level)


EVERY = tuple(POLICIES)


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=op.lower(), **attributes)


def test_a_good_model_passes_every_level(tmp_path: Path) -> None:
    data = build_tiny_model(tmp_path / "m.onnx").read_bytes()
    for level in POLICIES.values():
        assert len(check_model(data, "m.onnx", level).graph.nodes) == 11


def test_an_unknown_level_is_refused_by_name(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'strict'"):
        find_policy("strikt")
    with pytest.raises(UsageError, match="no policy 'none'"):
        open_session(tiny_model, policy="none")


def test_the_level_comes_from_the_environment_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nan.onnx"
    onnx.save(model([node("Add", "x w")], {"w": np.float32("nan")}), path)
    with pytest.raises(UsageError, match="'w' holds NaN"):
        open_session(path)
    monkeypatch.setenv("EDGECV_POLICY", "relaxed")
    open_session(path)
    with pytest.raises(UsageError, match="'w' holds NaN"):
        open_session(path, policy="strict")


# Operators and graphs.


def subgraph(op: str) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", "x", "out")], "b", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    )
    if op == "If":
        return model([node("If", "c", "y", then_branch=body, else_branch=body)], {"c": np.array(True)})
    looped = helper.make_graph(
        [node("Identity", "go", "still"), node("Identity", "x", "out")],
        "b",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, [])],
        [helper.make_tensor_value_info("still", 9, []), helper.make_tensor_value_info("out", 1, None)],
    )
    return model([node("Loop", "m c", "y", body=looped)], {"m": np.array(1 << 62), "c": np.array(True)})


def test_loops_are_refused_and_branches_are_for_own_files() -> None:
    refuse(subgraph("Loop"), "node 'loop' is Loop, control flow.*--trust")
    refuse(subgraph("If"), "node 'if' is If, control flow", levels=("strict",))


def test_a_rule_holds_inside_subgraphs() -> None:
    proto = subgraph("If")
    for attribute in proto.graph.node[0].attribute:
        attribute.g.node[0].op_type = "Loop"
    with pytest.raises(UsageError, match="is Loop, control flow"):
        check(proto, "standard")


def test_a_graph_hidden_in_another_operator_is_refused() -> None:
    proto = subgraph("If")
    proto.graph.node[0].op_type = "Relu"
    refuse(proto, "holds a graph in its attribute '(then|else)_branch'")


def test_graphs_nested_too_deep_are_refused_by_every_level() -> None:
    def nested(depth: int) -> onnx.ModelProto:
        graph = helper.make_graph([node("Relu")], "g", [], [helper.make_tensor_value_info("y", 1, None)])
        for _ in range(depth):
            graph = helper.make_graph(
                [node("If", "c", "y", then_branch=graph, else_branch=helper.make_graph([], "e", [], []))],
                "g", [], [helper.make_tensor_value_info("y", 1, None)],
            )  # fmt: skip
        proto = model([], {"c": np.array(True)})
        proto.graph.node.extend(graph.node)
        return proto

    check(nested(policy.MAX_GRAPH_DEPTH), "standard")
    with pytest.raises(UsageError, match="nested more than 8 deep"):
        check(nested(policy.MAX_GRAPH_DEPTH + 1), "relaxed")


@pytest.mark.parametrize(
    ("op", "domain"), [("Nope", ""), ("ImageDecoder", ""), ("Conv", "evil"), ("Tokenizer", "com.microsoft")]
)
def test_operators_outside_the_list_are_refused(op: str, domain: str) -> None:
    refuse(
        model([helper.make_node(op, ["x"], ["y"], domain=domain)], domains=("", domain)[: 2 if domain else 1]),
        "not on the list of operators|needs operators of the domain 'evil'",
    )


def test_what_onnxruntimes_optimizer_writes_is_allowed() -> None:
    check(
        model(
            [helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")],
            {"w": np.ones((4, 3, 3, 3), np.float32)},
            domains=("", "com.microsoft"),
        )
    )


def test_an_unused_domain_is_no_reason_to_refuse() -> None:
    check(model([node("Relu")], domains=("", "ai.onnx.ml", "com.example.unused")))


def test_functions_are_refused() -> None:
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], domains=("", "mine"))
    proto.functions.append(
        helper.make_function("mine", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 18)])
    )
    refuse(proto, "defines 1 functions of its own")


def test_training_information_is_refused() -> None:
    proto = model([node("Relu")])
    proto.training_info.add()
    refuse(proto, "training steps")


def test_sparse_tensors_are_refused() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.zeros(1, np.int64), "i"), [3]
    )
    proto = model([node("Relu")])
    proto.graph.sparse_initializer.append(sparse)
    refuse(proto, "sparse tensors")
    refuse(model([node("Constant", "", "c", sparse_value=sparse), node("Relu")]), "holds a sparse tensor")


# Weights.


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_that_are_not_finite_are_refused(dtype: type, raw: bool) -> None:
    def of(value: float) -> onnx.ModelProto:
        array = np.ones((4, 3, 1, 1), dtype)
        array[2, 1] = value
        proto = model([node("Conv", "x w")], taken=(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [1, 3, 8, 8]))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        stored = array.tobytes() if raw else array.ravel()
        proto.graph.initializer.append(helper.make_tensor("w", kind, array.shape, stored, raw=raw))
        return proto

    check(of(float(np.finfo(dtype).max)))
    refuse(of(np.nan), "weight 'w' holds NaN")
    refuse(of(np.inf), "weight 'w' of node 'conv' holds infinity")
    refuse(of(-np.inf), "weight 'w' of node 'conv' holds infinity")


def test_a_bfloat16_weight_that_is_not_finite_is_refused() -> None:
    proto = model([node("Mul", "x w")], taken=(TensorProto.BFLOAT16, [1]))
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [1], b"\x80\x7f", raw=True))
    refuse(proto, "'w' of node 'mul' holds infinity")


def test_infinity_means_something_in_masks_pads_and_bounds() -> None:
    infinite = np.float32("-inf")
    check(model([node("Where", "c x w")], {"c": np.array(True), "w": infinite}))
    check(model([node("Pad", "x p w")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": infinite}))
    check(model([node("Clip", "x w")], {"w": infinite}))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-30])
def test_scales_are_finite_and_above_zero(scale: float) -> None:
    weights = {"s": np.float32(scale), "z": np.uint8(3)}
    proto = model([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")], weights)
    if scale == 1e-30:
        check(proto)
    else:
        refuse(proto, "scale 's' of node|holds NaN|holds infinity")


@pytest.mark.parametrize("place", [1, 4, 6])
def test_every_scale_of_a_quantized_convolution_is_looked_at(place: int) -> None:
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    weights: dict[str, np.ndarray] = {n: np.ones((), np.float32) for n in ("xs", "ws", "ys")}
    weights |= {n: np.zeros((), np.uint8) for n in ("xz", "wz", "yz")}
    weights["w"] = np.ones((4, 3, 1, 1), np.uint8)
    good = [node("QLinearConv", " ".join(names))]
    check(model(good, weights, taken=(TensorProto.UINT8, [1, 3, 8, 8])))
    weights[names[place]] = np.zeros((), np.float32)
    refuse(model(good, weights, taken=(TensorProto.UINT8, [1, 3, 8, 8])), f"scale '{names[place]}'")


def test_weights_kept_outside_need_a_path_and_no_strict_level() -> None:
    proto = model([node("Add", "x w")], {"w": np.ones(1, np.float32)})
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "w.bin")
    proto.graph.initializer[0].ClearField("raw_data")
    refuse(proto, "keeps the weight 'w' outside the file", levels=("strict",))


def test_a_nodes_tensor_kept_outside_is_refused_by_every_level() -> None:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "t")
    onnx.external_data_helper.set_external_data(tensor, "/etc/hostname")
    tensor.ClearField("raw_data")
    with_attribute = model([node("Constant", "", "c", value=tensor), node("Add", "x c")])
    for level in ("standard", "relaxed"):
        with pytest.raises(UsageError, match="tensor 't' of a node outside the file"):
            check(with_attribute, level)
    body = subgraph("If")
    for attribute in body.graph.node[0].attribute:
        attribute.g.initializer.append(tensor)
    with pytest.raises(UsageError, match="outside the file"):
        check(body, "relaxed")


@pytest.mark.parametrize("size", [8, 13, 0])
def test_raw_bytes_are_as_many_as_the_shape_says(size: int) -> None:
    proto = model([node("Add", "x w")])
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [3], bytes(12), raw=True))
    proto.graph.initializer[0].raw_data = bytes(size)
    refuse(proto, f"has {size} bytes, its shape .* says 12", levels=EVERY)


# Whole numbers that end the process.


def divides(op: str, divisor: np.ndarray | None, kind: int = TensorProto.INT64) -> onnx.ModelProto:
    weights = {} if divisor is None else {"d": divisor}
    return model([node(op, "x d" if weights else "x x")], weights, taken=(kind, [4]), given=(kind, None))


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("divisor", [0, -1])
def test_whole_number_division_that_ends_the_process_is_refused_by_every_level(op: str, divisor: int) -> None:
    refuse(divides(op, np.array(divisor)), "by 0 or -1, which ends the process", levels=EVERY)
    refuse(divides(op, np.array([2, divisor, 3, 4])), "by 0 or -1", levels=EVERY)
    check(divides(op, np.array([2, 1, -2, 4])))


def test_a_divisor_that_is_not_constant_is_refused() -> None:
    refuse(divides("Div", None), "by what is not a constant")
    check(divides("Div", None, TensorProto.FLOAT))


@pytest.mark.parametrize(
    "made",
    [
        [node("Sub", "two two", "d")],
        [node("Constant", "", "d", value_int=0)],
        [node("Cast", "half", "d", to=TensorProto.INT64)],
        [node("Shape", "two", "s"), node("ReduceProd", "s", "p"), node("Sub", "p one", "d")],
    ],
)
def test_a_divisor_that_is_computed_is_followed(made: list[onnx.NodeProto]) -> None:
    weights = {"two": np.array([2]), "one": np.array(1), "half": np.float32(0.5)}
    proto = model([*made, node("Div", "x d")], weights, taken=(TensorProto.INT64, [4]), given=(7, None))
    refuse(proto, "by 0 or -1", levels=EVERY)


def test_a_divisor_that_depends_on_an_open_size_is_not_constant() -> None:
    nodes = [node("Shape", "x", "s"), node("Sub", "s seven", "d"), node("Div", "s d", "y")]
    weights = {"seven": np.array([7])}
    refuse(model(nodes, weights, taken=(1, ["n", 3]), given=(7, None)), "by what is not a constant")
    check(model(nodes, weights, taken=(1, [5, 3]), given=(7, None)))


def test_shape_arithmetic_with_whole_numbers_is_allowed() -> None:
    nodes = [
        node("Shape", "x", "s"), node("Div", "s two", "h"), node("Mul", "h two", "back"), node("Reshape", "x back"),
    ]  # fmt: skip
    check(model(nodes, {"two": np.array([2])}, taken=(1, ["n", 2, 4, 4])))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}),
        ("MaxPool", {"kernel_shape": [0, 2]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [1 << 40, 1]}),
        ("DepthToSpace", {"blocksize": 0}),
        ("SpaceToDepth", {"blocksize": -1}),
        ("LRN", {"size": 0}),
    ],
)
def test_counts_are_positive(op: str, attributes: dict[str, object]) -> None:
    refuse(model([node(op, **attributes)]), f"node '{op.lower()}' has .*, not 1 to", levels=EVERY)


def test_a_convolution_without_groups_is_refused() -> None:
    weights = {"w": np.ones((4, 3, 1, 1), np.float32)}
    refuse(model([node("Conv", "x w", group=0)], weights), "has group 0", levels=EVERY)
    refuse(model([node("Conv", "x w", pads=[1 << 30] * 4)], weights), "pads by more than", levels=EVERY)


# Sizes.


def grows(to: int) -> onnx.ModelProto:
    """Activations of 4 * ``to`` bytes at the Expand, next to nothing elsewhere."""
    return model(
        [node("Expand", "x s", "e"), node("ReduceMax", "e", keepdims=0)], {"s": np.array([to])}, taken=(1, [1])
    )


def test_activation_memory_at_the_limit_and_above() -> None:
    check(grows(policy.MAX_ACTIVATION_BYTES // 4 - 1))  # one float is the input
    refuse(grows(policy.MAX_ACTIVATION_BYTES // 4), "MiB for activations at 'expand', over the limit of 1024")


BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    "doubled forty times": lambda: model(
        [node("Concat", f"{'x' if i == 0 else f't{i}'} " * 2, f"t{i + 1}", axis=0) for i in range(40)]
        + [node("Relu", "t40")],
        taken=(1, [8]),
    ),
    "filled": lambda: model(
        [node("ConstantOfShape", "s", "c"), node("ReduceMax", "c")], {"s": np.array([1 << 20, 1 << 20])}
    ),
    "tiled": lambda: model([node("Tile", "x r")], {"r": np.array([1, 1, 1 << 12, 1 << 12])}),
    "padded": lambda: model([node("Pad", "x p")], {"p": np.array([0, 0, 1 << 15, 1 << 15, 0, 0, 0, 0])}),
    "resized": lambda: model(
        [node("Resize", "x r s")], {"r": np.zeros(0, np.float32), "s": np.float32([1, 1, 1e4, 1e4])}
    ),
    "broadcast": lambda: model([node("Add", "a b")], {"a": np.ones((1 << 15, 1)), "b": np.ones((1, 1 << 15))}),
    "outer product": lambda: model(
        [node("MatMul", "a b")], {"a": np.ones((1 << 15, 1), np.float32), "b": np.ones((1, 1 << 15), np.float32)}
    ),
    "counted": lambda: model(
        [node("Range", "a b c")], {"a": np.array(0), "b": np.array(1 << 40), "c": np.array(1)}, given=(7, None)
    ),
    "one hot": lambda: model(
        [node("OneHot", "i d v")], {"i": np.zeros(1 << 12, np.int64), "d": np.array(1 << 18), "v": np.zeros(2)}
    ),
    "padded by a convolution": lambda: model(
        [node("Conv", "x w", pads=[1 << 14] * 4)], {"w": np.ones((1, 3, 1, 1), np.float32)}
    ),
    "upsampled by a convolution": lambda: model(
        [node("ConvTranspose", "x w", strides=[1 << 14, 1 << 14])], {"w": np.ones((3, 1, 1, 1), np.float32)}
    ),
    "gathered": lambda: model(
        [node("Gather", "w i")], {"w": np.ones((1, 1 << 14), np.float32), "i": np.zeros(1 << 15, np.int64)}
    ),
    "in batches": lambda: model([node("Relu")], taken=(1, [4096, 3, 512, 512])),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_want_gigabytes_are_refused(name: str) -> None:
    refuse(BOMBS[name](), "MiB for activations")


def test_nodes_and_initializers_at_the_limit_and_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MAX_NODES", 5)
    monkeypatch.setattr(policy, "MAX_INITIALIZERS", 5)

    def of(nodes: int, weights: int) -> onnx.ModelProto:
        chain = [node("Relu", f"t{i}" if i else "x", f"t{i + 1}") for i in range(nodes - 1)]
        return model([*chain, node("Relu", f"t{nodes - 1}")], {f"w{i}": np.float32(i) for i in range(weights)})

    check(of(5, 5))
    refuse(of(6, 5), "more than 5 nodes", levels=EVERY)
    refuse(of(5, 6), "more than 5 initializers", levels=EVERY)


def test_messages_show_no_control_characters_and_stay_short() -> None:
    proto = model([helper.make_node("Nope" * 1000, ["x"], ["y"], name="a\nb\x1b[31m" + "c" * 5000)])
    refuse(proto, r"node 'a\?b\?\[31mcc")


def test_a_count_at_the_limit_and_above() -> None:
    def of(stride: int) -> onnx.ModelProto:
        return model([node("MaxPool", kernel_shape=[2, 2], strides=[stride, 1])])

    check(of(node_rules.MAX_ATTRIBUTE_VALUE))
    refuse(of(node_rules.MAX_ATTRIBUTE_VALUE + 1), "not 1 to 16777216", levels=EVERY)


def test_a_branch_knows_the_tensors_around_it() -> None:
    def of(divisor: np.ndarray) -> onnx.ModelProto:
        proto = subgraph("If")
        for attribute in proto.graph.node[0].attribute:
            inner = attribute.g.node[0]
            inner.op_type = "Div"
            inner.input.append("d")
        proto.graph.initializer.append(numpy_helper.from_array(divisor, "d"))
        return proto

    check(of(np.ones(1, np.float32)), "standard")
    whole = of(np.zeros(1, np.int64))
    whole.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(UsageError, match="by 0 or -1"):
        check(whole, "relaxed")


def test_nodes_out_of_order_are_refused() -> None:
    refuse(
        model([node("Tile", "a r", "y"), node("Relu", "x", "a")], {"r": np.array([1, 1, 1, 2])}),
        "'tile' comes before the nodes whose results it takes",
    )


def test_a_size_that_depends_on_the_picture_is_for_detectors() -> None:
    nodes = [node("NonZero", "x", "n"), node("Shape", "n", "s"), node("Expand", "x s", "y")]
    check(model(nodes))  # NonZero gives at most as many as there are
    nodes = [node("Cast", "x", "s", to=TensorProto.INT64), node("ConstantOfShape", "s", "y")]
    refuse(model(nodes, taken=(1, [2])), "size of what node 'constantofshape' gives", levels=("strict",))
