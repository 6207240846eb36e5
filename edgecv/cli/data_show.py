"""``edgecv data show``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.data import Folder
from edgecv.cli.options import Debug, Force, Json, Quiet, Seed
from edgecv.cli.output import emit, progress_bar


def show(
    folder: Folder,
    augment: Annotated[
        list[str] | None,
        typer.Option("--augment", metavar="LIST", help="NAME or NAME:STRENGTH, with commas; default crop,flip."),
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=64, help="Images, evenly spaced over the data.")] = 8,
    size: Annotated[
        int, typer.Option("--input-size", min=0, max=1024, help="Pixels of the square input; 0: 224, or the images'.")
    ] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("augmented.png"),
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Write a PNG to look at: images beside what each augmentation, and all together, make of them."""
    from edgecv.config.augmentation import AUGMENTATIONS, parse_augmentations
    from edgecv.files import check_output
    from edgecv.runtime.host import host_facts

    texts = [word.strip() for text in augment or ["crop,flip"] for word in text.split(",") if word.strip()]
    chosen = parse_augmentations(texts)
    check_output(output, force=force, inputs=(folder,))

    from edgecv.nn.contact_sheet import write_contact_sheet

    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        shown, side = write_contact_sheet(folder, texts, output, count=count, size=size, seed=seed, progress=progress)
    emit(
        {
            "data": folder,
            "file": output,
            "augment": dict(chosen),
            "input_size": side,
            "host": host_facts(n=shown, seed=seed),
        },
        as_json=as_json,
        quiet=quiet,
        tables=[
            (
                "augmentations",
                ["name", "strength", "what it is"],
                [
                    [name, f"{value:g}" if AUGMENTATIONS[name].high else "", AUGMENTATIONS[name].help]
                    for name, value in chosen
                ],
            )
        ]
        if chosen
        else [],
        verdict=f"{shown} images at {side} pixels; look at them before training",
        artifact=output,
        next_command=f"edgecv train MODEL --data {folder} --augment {','.join(texts)}",
    )
