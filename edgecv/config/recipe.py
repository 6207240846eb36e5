"""Recipes: the chain as a TOML file, with the same names as the commands and their options (``recipes/*.toml``)."""

from dataclasses import dataclass

from edgecv.config.tables import find_shipped, read_table
from edgecv.errors import UsageError
from edgecv.typed import build

SCHEMA = 1
QUANTIZE_MODES = ("int8", "dynamic", "fp16", "bf16", "weights16", "weights8", "weights4")


@dataclass(frozen=True, slots=True)
class ExportStage:
    """``edgecv export``: network name, and whether random weights will do."""

    model: str
    random_init: bool = False
    softmax: bool = False
    dynamic_size: bool = False


@dataclass(frozen=True, slots=True)
class QuantizeStage:
    """``edgecv quantize``: its options by their names; an empty ``device`` means int8 that any CPU computes alike."""

    mode: str = "int8"
    ranges: str = "mse"
    method: str = "auto"
    keep_float: tuple[str, ...] = ()
    device: str = ""
    activations: int = 8


@dataclass(frozen=True, slots=True)
class VerifyStage:
    """``edgecv verify``: the largest accepted top-1 drop in percentage points."""

    max_drop: float


@dataclass(frozen=True, slots=True)
class BenchStage:
    """``edgecv bench``: provider policy and preset."""

    provider: str = "cpu"
    preset: str = "rapid"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One runnable deployment: each stage is optional but the export."""

    schema: int
    name: str
    title: str
    export: ExportStage
    seed: int = 0
    quantize: QuantizeStage | None = None
    verify: VerifyStage | None = None
    bench: BenchStage | None = None


def load_recipe(name: str) -> Recipe:
    """Load a shipped recipe by name, or any by the path of its ``.toml``.

    Raises:
        UsageError: Unknown name, unreadable file, unknown key, wrong type or newer schema.
    """
    path = find_shipped("recipes", name)
    recipe = build(Recipe, read_table(path, "recipe"), str(path))
    if recipe.schema > SCHEMA:
        raise UsageError(f"{path}: schema {recipe.schema} is newer than this edgecv reads ({SCHEMA}); update edgecv.")
    if recipe.quantize is not None and recipe.quantize.mode not in QUANTIZE_MODES:
        raise UsageError(f"{path}: quantize.mode '{recipe.quantize.mode}' is not one of {', '.join(QUANTIZE_MODES)}.")
    if recipe.verify is not None and recipe.quantize is None:
        raise UsageError(f"{path}: [verify] compares a quantized model with its original; add [quantize].")
    return recipe
