"""import-linter guards the layers (pyproject.toml); here is what it does not see."""

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

MODULES = sorted((REPOSITORY / "edgecv").rglob("*.py"))
TORCH = {"torch", "timm", "torchvision", "safetensors", "onnxscript"}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_import_linter_knows_every_folder() -> None:
    import tomllib

    configuration = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = " | ".join(configuration["tool"]["importlinter"]["contracts"][0]["layers"])
    for entry in (REPOSITORY / "edgecv").iterdir():
        if (entry.is_dir() and (entry / "__init__.py").exists()) or (
            entry.suffix == ".py" and entry.stem != "__init__"
        ):
            assert f"edgecv.{entry.stem}" in layers.replace("|", " ").split()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_torch_lives_in_nn_and_modules_stay_readable(path: Path) -> None:
    folder = path.relative_to(REPOSITORY / "edgecv").parts[0]
    if folder != "nn":
        assert not _imports(path) & TORCH
    if folder == "runtime":
        assert not _imports(path) & {"onnx", "onnx_ir", "typer", "rich"}
    assert len(path.read_text().splitlines()) <= 300
    assert ast.get_docstring(ast.parse(path.read_text()))
