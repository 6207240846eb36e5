import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.errors import UsageError
from edgecv.quantize.checks import check_float_model, check_weights_finite, name_nodes
from edgecv.quantize.static import quantize_static


def test_a_quantized_model_is_refused() -> None:
    model = quantize_static(residual_model(), MANIFEST, lambda: iter([images()])).model
    with pytest.raises(UsageError, match=r"quantized already.*quantize the float model"):
        check_float_model(model)


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_half_precision_is_refused(dtype: ir.DataType) -> None:
    model = residual_model()
    value = model.graph.initializers["w2"]
    value.const_value = ir.tensor(value.const_value.numpy().astype(dtype.numpy()), dtype=dtype)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=f"{dtype.name.lower()} weights \\('w2'\\)"):
        check_float_model(model)


def test_a_weight_that_is_not_finite_is_named() -> None:
    weight = np.zeros((8, 1, 3, 3), np.float32)
    weight[3, 0, 1, 1] = np.nan
    with pytest.raises(UsageError, match="weight 'w2' of node 'Conv_2' holds NaN or infinity"):
        check_weights_finite(residual_model(w2=weight))


def test_a_clip_without_an_upper_bound_is_no_damage() -> None:
    check_weights_finite(residual_model(six=np.array(np.inf, np.float32)))


def test_every_node_gets_a_name_of_its_own() -> None:
    model = small_model("a = Relu(image) b = Relu(a) y = Flatten(b)", {})
    first, second, third = model.graph
    first.name, second.name, third.name = "same", "same", None
    assert name_nodes(model) == 2
    assert [n.name for n in model.graph] == ["same", "Relu_b", "Flatten_y"]
