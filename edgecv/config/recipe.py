"""Recipes: the chain as a TOML file, with the same names as the commands and their options (``recipes/*.toml``)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgecv.config.device import load_device
from edgecv.config.flat import build_flat, check_keys, checked, flat_fields
from edgecv.config.overrides import override
from edgecv.config.settings import check_settings, setting
from edgecv.config.stages import (
    QUANTIZE_MODES,
    BenchStage,
    DistillStage,
    EvalStage,
    ExportStage,
    FactorizeStage,
    Gates,
    PruneStage,
    QuantizeStage,
    TrainStage,
    VerifyStage,
)
from edgecv.config.tables import find_shipped, read_table
from edgecv.errors import UsageError
from edgecv.typed import convert_fields, shown

__all__ = ["QUANTIZE_MODES", "SCHEMA", "STAGES", "TRAINING", "Recipe", "build_recipe", "load_recipe"]

SCHEMA = 1

STAGES: dict[str, type] = {
    "train": TrainStage,
    "distill": DistillStage,
    "prune": PruneStage,
    "factorize": FactorizeStage,
    "export": ExportStage,
    "quantize": QuantizeStage,
    "verify": VerifyStage,
    "eval": EvalStage,
    "bench": BenchStage,
}
"""Stages in the order they run in, whatever their order in the file."""

TRAINING = ("train", "distill", "prune", "factorize")
"""Stages that learn from images and give a checkpoint."""

_TABLES: dict[str, type] = {**STAGES, "gates": Gates}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One chain; each stage is there or not.

    Raises:
        UsageError: Stages that lack what they work on, or keys that contradict each other.
    """

    schema: int = setting(SCHEMA, "Version of this file format.", low=1, high=SCHEMA)
    name: str = setting("", "What its files are called.")
    title: str = setting("", "For people.")
    model: str = setting("", "Network the chain starts with: a name (edgecv models), or a checkpoint.")
    data: str = setting("", "Images to train on: class folders, a zip of them, or a CSV with path,label.")
    eval_data: str = setting("", "Labelled images to judge on; else those held out of data.")
    calib: str = setting("", "Images to calibrate on; else those trained on.")
    hold_out: float = setting(
        0.1, "Share of data held out to choose epochs by; 0: they are chosen on eval_data.", low=0, high=0.9
    )
    device: str = setting("", "Profile of the device the model is for (edgecv devices list).")
    seed: int = setting(0, "Seed of everything random.", low=0, high=2**31 - 1)
    train: TrainStage | None = None
    distill: DistillStage | None = None
    prune: PruneStage | None = None
    factorize: FactorizeStage | None = None
    export: ExportStage | None = None
    quantize: QuantizeStage | None = None
    verify: VerifyStage | None = None
    eval: EvalStage | None = None
    bench: BenchStage | None = None
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        check_settings(self)
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"name '{self.name[:100]}' is not a file name of letters, digits, '.', '_' and '-'.")
        if not self.stages:
            raise UsageError(f"there is no stage; add one of {', '.join(f'[{s}]' for s in STAGES)}.")
        _check_order(self)
        _check_gates(self)
        own = (self.quantize.device if self.quantize else "", self.prune.pruning.for_device if self.prune else "")
        for device in {self.device, *own} - {""}:
            load_device(device)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are there, in the order they run in."""
        return tuple(name for name in STAGES if getattr(self, name) is not None)

    @property
    def max_drop(self) -> float | None:
        """The largest accepted drop by quantization in points, wherever it is written."""
        own = self.verify.max_drop if self.verify else None
        return self.gates.max_drop if own is None else own


def load_recipe(name: str, changes: tuple[str, ...] = (), given: Mapping[str, Any] | None = None) -> Recipe:
    """Load a shipped recipe by name, or any by the path of its ``.toml``.

    Args:
        name: Of the recipe, or its path.
        changes: ``key=value`` or ``stage.key=value`` with the value as in TOML, in place of what the file says.
        given: Top-level keys in place of what the file says.

    Raises:
        UsageError: Unknown name, unreadable file, unknown key, wrong type, a value out of range, or newer schema.
    """
    path = find_shipped("recipes", name)
    table = read_table(path, "recipe")
    schema = table.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise UsageError(f"{path}: schema {schema} is newer than this edgecv reads ({SCHEMA}); update edgecv.")
    for key in ("schema", "name"):
        if key not in table:
            raise UsageError(f"{path}: the key '{key}' is missing.")
    return build_recipe({**override(table, changes), **(given or {})}, str(path))


def build_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """Make a recipe of a parsed file.

    Raises:
        UsageError: As :func:`load_recipe`; messages begin with ``where``.
    """
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {shown(table)}, not a table.")
    tables = {name: table[name] for name in _TABLES if name in table}
    top = {key: value for key, value in table.items() if key not in tables}
    check_keys(top, [f.name for f in fields(Recipe)], where, _places())
    values = convert_fields(Recipe, top, where)
    for name, inner in tables.items():
        values[name] = build_flat(_TABLES[name], inner, f"{where}: {name}", _places())
    return checked(lambda: Recipe(**values), where)


def _places() -> dict[str, str]:
    """Return key -> where it belongs, for who puts it elsewhere."""
    found: dict[str, list[str]] = {f.name: ["the top of the file"] for f in fields(Recipe)}
    for name, cls in _TABLES.items():
        for key in flat_fields(cls):
            found.setdefault(key, []).append(f"[{name}]")
    return {key: " or ".join(places[:3]) for key, places in found.items()}


def _check_order(recipe: Recipe) -> None:
    made = [s for s in TRAINING if s in recipe.stages]
    teacher = recipe.distill is not None and bool(recipe.distill.teacher)
    if recipe.train and teacher:
        raise UsageError("[train] makes a teacher and distill.teacher names another; leave one of them.")
    if not recipe.model and not teacher:
        raise UsageError("the key 'model' is missing: the network the chain starts with.")
    if recipe.model and teacher:
        raise UsageError(f"model '{recipe.model}' is not used: [distill] starts from its student and its teacher.")
    for stage in ("quantize", "eval", "bench"):
        if getattr(recipe, stage) and not (recipe.export or (recipe.model.endswith(".onnx") and not made)):
            raise UsageError(f"[{stage}] works on an exported model; add [export].")
    if recipe.verify and not recipe.quantize:
        raise UsageError("[verify] compares a quantized model with its original; add [quantize].")
    for stage in ("prune", "factorize"):
        own = getattr(recipe, stage)
        if own and own.weights and made[0] != stage:
            raise UsageError(f"{stage}.weights is not used: [{stage}] takes what [{made[0]}] made; leave it out.")
    if made and recipe.model.endswith(".onnx"):
        raise UsageError(
            f"model '{recipe.model}' cannot be trained: an .onnx holds no such network; name a checkpoint."
        )
    if recipe.export and made and (recipe.export.weights or recipe.export.random_init or recipe.export.arch):
        raise UsageError(f"[export] takes what [{made[-1]}] made; leave out its weights, random_init and arch.")
    if not recipe.hold_out and made and not recipe.eval_data:
        raise UsageError("hold_out 0 leaves no images to judge by; name some with eval_data, or hold out a share.")


def _check_gates(recipe: Recipe) -> None:
    gates = recipe.gates
    if recipe.verify and recipe.verify.max_drop is not None and gates.max_drop is not None:
        raise UsageError("max_drop is in [verify] and in [gates]; leave one of them.")
    wanted = {
        "max_drop": ("quantize", "verify"),
        "latency_ratio": ("quantize", "bench"),
        "latency_ms": ("bench",),
        "size_mb": (),
        "top1": (),
    }
    for f in fields(gates):
        missing = [s for s in wanted[f.name] if s not in recipe.stages]
        if getattr(gates, f.name) is not None and missing:
            raise UsageError(f"gates.{f.name} needs {' and '.join(f'[{s}]' for s in missing)}.")
