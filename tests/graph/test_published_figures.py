"""Parameters and multiply-accumulates of well-known networks, counted on their graphs, against published figures."""

import io
import warnings

import onnx
import onnx_ir as ir
import pytest
from conftest import swept

from edgecv.graph.summary import Summary, summarise

# Parameters and GFLOPS (one for a multiply and an add) of docs.pytorch.org/vision/stable/models.html, "Table of all
# available classification weights". Receptive fields in front of the global pooling or the first dense layer:
# Araujo, Norris and Sim, Distill 2019, doi:10.23915/distill.00021, table 1 (AlexNet 195); None where it has no entry
# for this very variant.
PUBLISHED = {
    "alexnet": (61_100_840, 0.71, 195),
    "convnext_tiny": (28_589_128, 4.46, None),
    "densenet121": (7_978_856, 2.83, None),
    "efficientnet_b0": (5_288_548, 0.39, None),
    "googlenet": (6_624_904, 1.50, None),
    "mnasnet1_0": (4_383_312, 0.31, None),
    "mobilenet_v2": (3_504_872, 0.30, None),
    "mobilenet_v3_large": (5_483_032, 0.22, None),
    "regnet_y_400mf": (4_344_144, 0.40, None),
    "resnet18": (11_689_512, 1.81, None),
    "resnet50": (25_557_032, 4.09, None),
    "shufflenet_v2_x1_0": (2_278_604, 0.14, None),
    "squeezenet1_0": (1_248_424, 0.82, None),
    "vgg11": (132_863_336, 7.61, None),
    "vit_b_16": (86_567_656, 17.56, None),
}


def _exported(name: str) -> Summary:
    """Export a network as it is, batch normalisations and all, with numbers that no two weights share."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    network = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    for weight in network.parameters():
        torch.nn.init.normal_(weight)  # the exporter stores equal arrays once
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            torch.zeros(1, 3, 224, 224),
            buffer,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # else normalisations are folded, and their parameters with them
            do_constant_folding=False,
            opset_version=17,
        )
    return summarise(ir.from_proto(onnx.load_model_from_string(buffer.getvalue())))


@pytest.mark.slow
@pytest.mark.parametrize("name", swept(PUBLISHED, ("alexnet", "mobilenet_v3_large", "resnet18")))
def test_counts_agree_with_the_published_figures(name: str) -> None:
    parameters, gmacs, field = PUBLISHED[name]
    found = _exported(name)
    assert (found.complete, found.uncounted) == (True, ())
    assert found.parameters == parameters
    assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.0051)
    if field is not None:
        assert found.field is not None
        assert found.field.size == (field, field)
