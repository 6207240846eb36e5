"""``edgecv recipe``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.options import Debug, Force, Json, Quiet, Seed
from edgecv.cli.output import emit


def new(
    model: Annotated[str, typer.Argument(help="Network to train: a name (edgecv models), or a checkpoint.")],
    data: Annotated[str, typer.Option("--data", metavar="PATH", help="Images to train on, in class folders.")],
    eval_data: Annotated[
        str, typer.Option("--eval-data", metavar="PATH", help="Labelled images to judge on; else held out.")
    ] = "",
    student: Annotated[str, typer.Option("--student", help="Add [distill]: a small network learns from MODEL.")] = "",
    prune: Annotated[
        str, typer.Option("--prune", metavar="macs=SHARE|latency=SHARE@cpu", help="Add [prune]: what is to remain.")
    ] = "",
    factorize: Annotated[bool, typer.Option("--factorize", help="Add [factorize].")] = False,
    device: Annotated[str, typer.Option("--device", help="Profile the model is for (edgecv devices list).")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("recipe.toml"),
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Write a recipe with every key and its explanation, for a network and a folder of images."""
    from edgecv.pipeline.recipe_new import NewRecipe, write_new_recipe

    request = NewRecipe(
        model=model, data=data, eval_data=eval_data, student=student, prune=prune, factorize=factorize, device=device,
        output=output, force=force, seed=seed,
    )  # fmt: skip
    result = write_new_recipe(request)
    start = "from published weights" if result["pretrained"] else "from scratch, or the checkpoint's weights"
    emit(
        result,
        as_json=as_json,
        quiet=quiet,
        verdict=f"{', '.join(result['stages'])}; {result['images']} images of {result['classes']} classes, {start}",
        artifact=output,
        next_command=f"edgecv run {output} --dry-run",
    )
