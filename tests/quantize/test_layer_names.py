import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.config.device import FULL_RANGE
from edgecv.errors import UsageError
from edgecv.quantize.basis import prepare_basis
from edgecv.quantize.dynamic import quantize_dynamic
from edgecv.quantize.layer_names import layer_names, resolve_excluded
from edgecv.quantize.mixed import parse_keep_float
from edgecv.quantize.saturation import audit_saturation
from edgecv.quantize.static import quantize_static

DATA = images(8)


def named(**weights: str) -> ir.Model:
    model = residual_model()
    for old, new in weights.items():
        model.graph.initializers[old].name = new
    return model


def names_of(model: ir.Model) -> dict[str, str]:
    return {str(node.name): name for node, name in layer_names(model.graph).items()}


def test_layers_are_called_by_their_weights_where_that_says_which() -> None:
    model = named(w1="stem.weight", w2="dw.weight_padded", w3="dw.weight", w4="head.weight")
    names = names_of(model)
    assert names == {"Conv_0": "stem", "Conv_2": "Conv_2", "Conv_4": "Conv_4", "Gemm_9": "head"}
    assert resolve_excluded(model, list(names.values())) == tuple(names)


def test_a_quantized_file_calls_them_the_same() -> None:
    model = named(w1="stem.weight", w2="dw.weight", w3="pw.weight", w4="head.weight")
    coded = quantize_static(model, MANIFEST, lambda: iter([DATA]), scheme=FULL_RANGE).model
    assert [row.layer for row in audit_saturation(coded).layers] == ["stem", "pw", "head"]
    assert {n: names_of(coded)[n] for n in names_of(model)} == names_of(model)
    assert "head" in [row.layer for row in audit_saturation(quantize_dynamic(model).model).layers]


def test_a_weight_named_like_another_node_is_no_name() -> None:
    assert names_of(named(w1="Gemm_9.weight"))["Conv_0"] == "Conv_0"


def test_a_layer_called_like_a_choice_can_be_named() -> None:
    model = named(w1="7.weight", w2="auto.weight")
    names = names_of(model)
    assert (names["Conv_0"], names["Conv_2"]) == ("name:7", "name:auto")
    kept = parse_keep_float(["name:7", "name:auto", "3"])
    assert kept.count == 3
    assert resolve_excluded(model, kept.names) == ("Conv_0", "Conv_2")


def test_what_is_not_quantized_by_itself_is_refused_with_what_is() -> None:
    model = named(w1="stem.weight", w2="dw.weight")
    for exclude in ("Clip_1",), ("Conv_0", "Clip_1"):
        with pytest.raises(UsageError, match=r"'Clip_1' \(Clip\) in float changes nothing.*'stem' or 'dw'"):
            prepare_basis(model, MANIFEST, lambda: iter([DATA]), exclude=exclude)
    with pytest.raises(UsageError, match=r"'Clip_1'.*changes nothing"):
        quantize_dynamic(model, exclude=["Clip_1"])
    basis = prepare_basis(model, MANIFEST, lambda: iter([DATA]), exclude=["Add_5"])
    assert "Add_5" not in basis.placement.others


def test_a_layer_that_stays_float_anyway_may_be_named() -> None:
    body = "a = ConvTranspose(image, t) b = Conv(a, w) g = GlobalAveragePool(b) f = Flatten(g) y = Gemm(f, v)"
    model = small_model(body, {"t": (3, 3, 2, 2), "w": (4, 3, 3, 3), "v": (4, 5)})
    basis = prepare_basis(model, MANIFEST, lambda: iter([DATA]), exclude=["ConvTranspose_0"])
    assert basis.placement.kept_float == {"ConvTranspose_0": "excluded by the user"}


def test_an_unknown_node_shows_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no node or layer 'Conv_22' to keep in float.*'Conv_2'"):
        resolve_excluded(residual_model(), ["Conv_22"])


def test_a_layer_may_be_named_by_its_weight() -> None:
    model = residual_model()
    model.graph.initializers["w2"].name = "blocks.0.conv_dw.weight"
    assert resolve_excluded(model, ["blocks.0.conv_dw", "w3", "Gemm_9"]) == ("Conv_2", "Conv_4", "Gemm_9")
