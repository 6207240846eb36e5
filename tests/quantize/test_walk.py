import numpy as np
import onnx_ir as ir
from small_graphs import images, residual_model, run, small_model

from edgecv.quantize.walk import open_part, walk

DATA = images(6)


def test_walking_to_the_end_gives_what_the_whole_graph_gives() -> None:
    model = residual_model()
    *_, (_, live) = walk(model, DATA)
    assert np.allclose(live[model.graph.outputs[0]][0], run(model, DATA), rtol=1e-5, atol=1e-6)


def test_tensors_nobody_reads_any_more_are_dropped() -> None:
    model = residual_model()
    names = [{v.name for v in live} for _, live in walk(model, DATA)]
    assert "image" in names[0]  # the caller may still look at what the node has read
    assert "image" not in names[1]
    assert "low" in names[4]  # the residual
    assert names[-1] == {"f", "y"}


def test_a_changed_tensor_changes_what_is_behind_it() -> None:
    model = residual_model()
    ends = []
    for zeroed in (False, True):
        for node, live in walk(model, DATA):
            if zeroed and node.outputs[0].name == "r":
                live[node.outputs[0]] = [np.zeros_like(v) for v in live[node.outputs[0]]]
        ends.append(live[model.graph.outputs[0]][0])
    assert not np.allclose(*ends)


def test_a_graph_with_a_fixed_batch_is_walked_in_parts() -> None:
    model = residual_model()
    model.graph.inputs[0].shape = ir.Shape([2, *DATA.shape[1:]])
    *_, (_, live) = walk(model, DATA)
    parts = live[model.graph.outputs[0]]
    assert [len(p) for p in parts] == [2, 2, 2]
    assert np.allclose(np.concatenate(parts), run(residual_model(), DATA), rtol=1e-5, atol=1e-6)


def test_the_rest_of_a_graph_runs_from_the_tensors_that_are_alive() -> None:
    model = residual_model()
    order = list(model.graph)
    for position, (node, live) in enumerate(walk(model, DATA)):
        if node.outputs[0].name == "r":
            part = open_part(model, order[position + 1 :], list(model.graph.outputs), live)
            assert {v.name for v in part.feeds} == {"r", "low"}
            assert np.allclose(part.run(live)[0][0], run(model, DATA), rtol=1e-5, atol=1e-6)


def test_sizes_that_are_computed_are_walked_through() -> None:
    body = """
        a = Conv(image, w) s = Shape(a) n = Slice(s, zero, two) m = Concat<axis=0>(n, size)
        r = Resize<mode="linear">(a, , , m) g = GlobalAveragePool(r) y = Flatten(g)
    """
    numbers = {"zero": [0], "two": [2], "size": [7, 7]}
    model = small_model(body, {"w": (4, 3, 3, 3)} | {k: np.array(v, np.int64) for k, v in numbers.items()})
    *_, (_, live) = walk(model, DATA)
    assert np.allclose(live[model.graph.outputs[0]][0], run(model, DATA), rtol=1e-5, atol=1e-6)
