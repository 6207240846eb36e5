"""``edgecv recipe new``: a recipe for a network and a folder, to be read and changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.config.recipe import Recipe, build_recipe
from edgecv.config.recipe_text import recipe_text
from edgecv.errors import UsageError
from edgecv.files import check_output, write_bytes
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.recipe_images import resolve

MAX_DROP = 1.0
"""Points of top-1, where nobody says otherwise: what a few hundred images can decide."""


@dataclass(frozen=True, slots=True)
class NewRecipe:
    """What ``edgecv recipe new`` was asked; see ``edgecv recipe new --help``."""

    model: str
    data: str
    output: Path
    eval_data: str = ""
    student: str = ""
    prune: str = ""
    factorize: bool = False
    device: str = ""
    force: bool = False
    seed: int = 0


def write_new_recipe(request: NewRecipe) -> dict[str, Any]:
    """Check that the network and the images are there, write the recipe, and return what it says.

    Returns:
        ``artifact``, ``recipe`` (its name), ``stages``, ``images``, ``classes`` and ``pretrained``.

    Raises:
        UsageError: Unknown network, images without classes, a name that no recipe can have, or an output in the way.
    """
    if request.output.suffix != ".toml":
        raise UsageError(f"'{request.output}' does not end in .toml, which a recipe does; name one with -o.")
    check_output(request.output, force=request.force)
    require_extra("train", "torch", "timm")
    from edgecv.data.folder import open_dataset
    from edgecv.nn.names import check_name

    for name in (request.model, request.student):
        if name:
            check_name(name)
    images = resolve(request.data)
    dataset = open_dataset(images or Path(request.data))
    if not dataset.class_names:
        raise UsageError(f"the images in '{request.data}' have no classes to learn; put them into class folders.")
    recipe = _recipe(request)
    heading = [
        f"{recipe.title}: {len(dataset)} images of {len(dataset.class_names)} classes.",
        f"  edgecv run {request.output} --dry-run   (what it would do)",
        f"  edgecv run {request.output}",
        "Paths are looked up from the folder edgecv is started in. Take away the tables of stages you do not want.",
        "",
    ]
    write_bytes(request.output, recipe_text(recipe, heading).encode())
    return {
        "artifact": str(request.output),
        "recipe": recipe.name,
        "stages": list(recipe.stages),
        "images": len(dataset),
        "classes": len(dataset.class_names),
        "pretrained": recipe.train is not None and recipe.train.pretrained,
    }


def _recipe(request: NewRecipe) -> Recipe:
    from edgecv.nn.describe import weights_at_hand

    checkpoint = request.model.endswith(".safetensors")
    table: dict[str, Any] = {
        "name": request.output.stem,
        "title": f"{request.model} on {request.data}",
        "model": request.model,
        "data": request.data,
        "eval_data": request.eval_data,
        "device": request.device,
        "seed": request.seed,
        "train": {"pretrained": not checkpoint and weights_at_hand(request.model) != "none"},
        "export": {},
        "quantize": {"mode": "int8"},
        "verify": {"max_drop": MAX_DROP},
        "bench": {},
    }
    if request.student:
        table["distill"] = {"student": request.student}
    if request.prune:
        table["prune"] = {"to": request.prune}
    if request.factorize:
        table["factorize"] = {}
    return build_recipe(table, str(request.output))
