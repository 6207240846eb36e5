import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.graph.opset import upgrade_opset
from edgecv.quantize.bfloat16 import BFLOAT16_OPSET, convert_bfloat16, operators_without_kernel
from edgecv.quantize.half_graph import value_types

TEST = images(8, seed=3)


def test_the_cpu_provider_has_kernels_for_what_moves_bytes_and_none_that_multiplies() -> None:
    model = upgrade_opset(residual_model(), BFLOAT16_OPSET)
    lacking = operators_without_kernel(model, value_types(model), "cpu")
    assert lacking >= {"Conv", "Gemm", "Add", "MaxPool", "GlobalAveragePool"}
    assert not lacking & {"Flatten", "Reshape"}


def test_a_provider_without_kernels_for_the_layers_is_refused_with_their_operators_and_a_way_out() -> None:
    with pytest.raises(
        EnvironmentRefusedError, match=r"'cpu' has no bfloat16 kernel for .*Conv.*Gemm.*--weights-only 16"
    ):
        convert_bfloat16(residual_model(), MANIFEST, lambda: iter([TEST]), provider="cpu")


def test_a_provider_that_is_not_here_says_so_itself() -> None:
    with pytest.raises((EnvironmentRefusedError, UsageError), match="provider 'coreml'"):
        convert_bfloat16(residual_model(), MANIFEST, provider="coreml")


def test_operators_of_every_input_type_are_tried_as_they_stand() -> None:
    body = """
        s = Shape(image) f = Flatten(image) c = Cast<to=1>(s) t = Unsqueeze(f, one) r = Reshape(t, flat)
        y = Gemm(r, v)
    """
    model = small_model(body, {"one": np.array([1]), "flat": np.array([0, 432]), "v": (432, 5)}, opset=BFLOAT16_OPSET)
    model.ir_version = 10
    assert operators_without_kernel(model, value_types(model), "cpu") == {"Gemm"}


@pytest.mark.cuda
@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs CUDA")
def test_a_network_runs_in_bfloat16_on_cuda() -> None:
    found = convert_bfloat16(residual_model(), MANIFEST, lambda: iter([TEST]), provider="cuda")
    assert found.summary["layers"] == 4
    assert found.summary["compared"]["sqnr_db"] > 25
    kinds = {v.dtype for v in found.model.graph.initializers.values()}
    assert ir.DataType.BFLOAT16 in kinds
