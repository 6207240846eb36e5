import onnx_ir as ir
from small_graphs import residual_model, small_model

from edgecv.config.device import known_devices
from edgecv.graph.portability import Obstacle, find_obstacles


def _found(model: ir.Model) -> dict[str, Obstacle]:
    return {obstacle.what: obstacle for obstacle in find_obstacles(model, known_devices())}


def test_a_plain_network_runs_everywhere() -> None:
    assert not _found(residual_model())


def test_operators_of_one_runtime_are_named() -> None:
    model = small_model("a = Relu(image) y = com.microsoft.QuickGelu(a)", {})
    model.opset_imports["com.microsoft"] = 1
    assert _found(model)["1 com.microsoft::QuickGelu"].devices == ()


def test_a_new_opset_names_the_devices_that_do_not_read_it() -> None:
    model = residual_model()
    model.opset_imports[""] = 21
    model.ir_version = 10
    found = _found(model)
    assert set(found) == {"opset 21", "IR version 10"}
    assert "arm64-generic" in found["opset 21"].devices
    assert "rpi5" not in found["opset 21"].devices


def test_lengths_that_depend_on_the_content_and_free_images_concern_compiling_providers() -> None:
    model = small_model("y = NonZero(image)", {}, outputs=("int64[r, n] y",))
    model.graph.inputs[0].shape = ir.Shape(["n", 3, "h", 12])
    found = _found(model)
    assert "cuda-generic" in found["1 NonZero"].devices
    assert "cuda-generic" in found["free dimensions: image axis 2"].devices
