import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.errors import UsageError
from edgecv.quantize.coverage import measure_coverage
from edgecv.quantize.static import quantize_static


def test_a_float_model_counts_as_float() -> None:
    found = measure_coverage(residual_model())
    assert (found.conv_int8, found.conv_float, found.matmul_float) == (0, 3, 1)


def test_a_quantized_model_is_int8_throughout() -> None:
    model = quantize_static(residual_model(), MANIFEST, lambda: iter([images()])).model
    found = measure_coverage(model).as_dict()
    expected = {"conv_int8": 3, "conv_float": 0, "matmul_int8": 1, "matmul_float": 0, "other_int8": 2}
    assert found == expected | {"quantize": 1, "dequantize": 0}  # the image itself is quantized at run time


def test_a_refused_model_is_an_error() -> None:
    with pytest.raises(UsageError, match="refuses the model"):
        measure_coverage(small_model("y = NoSuchOperator(image)", {}))
