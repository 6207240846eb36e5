import inspect
import subprocess
import sys

import pytest

import edgecv


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in edgecv.__all__:
        thing = getattr(edgecv, name)
        assert name == "__version__" or inspect.getdoc(thing)
    assert len(edgecv.__all__) <= 12


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="exprot"):
        _ = edgecv.exprot


HEAVY = ("torch", "timm", "torchvision", "onnx", "onnx_ir", "onnxruntime", "numpy", "PIL", "rich")


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import edgecv", HEAVY),
        ("from edgecv.cli.main import main; main(['--help'])", HEAVY),
        ("from edgecv.cli.main import main; main(['quantize', '--help'])", HEAVY),
        ("from edgecv.runtime import Model", ("torch", "timm", "torchvision", "onnx", "onnx_ir", "typer", "rich")),
        ("import edgecv.benchmark.worker", ("torch", "timm", "onnx", "onnx_ir", "typer")),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, forbidden: tuple[str, ...]) -> None:
    check = f"{code}\nimport sys\nsys.exit(','.join(m for m in {forbidden!r} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
