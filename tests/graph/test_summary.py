from pathlib import Path

import onnx_ir as ir
from small_graphs import residual_model, small_model

from edgecv.graph.summary import summarise


def test_totals_are_the_sums_of_the_layers() -> None:
    found = summarise(residual_model())
    assert found.parameters == 421
    assert found.macs == sum(x.macs for x in found.layers) == 8 * 144 * (27 + 9 + 8) + 40
    assert found.activation_bytes == sum(x.activation_bytes for x in found.layers)
    assert found.peak_activation_bytes == max(x.held_bytes for x in found.layers)
    assert found.peak_layer in {x.name for x in found.layers}
    assert (found.complete, found.uncounted) == (True, ())


def test_the_widest_view_short_of_the_whole_image_is_named() -> None:
    found = summarise(residual_model())
    assert found.field is not None
    assert (found.field.size, found.field.stride, found.field_layer) == ((6, 6), (2, 2), "MaxPool_6")


def test_what_only_unpacks_weights_is_no_layer(tiny_model: Path) -> None:
    model = small_model("t = Transpose<perm=[1,0]>(w) f = Flatten(image) y = Gemm(f, t)", {"w": (7, 432)})
    assert [x.operator for x in summarise(model).layers] == ["Flatten", "Gemm"]
    assert summarise(ir.load(tiny_model), batch=2).layers[-1].output_shape == (2, 3)
