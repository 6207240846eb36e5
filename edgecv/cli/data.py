"""``edgecv data check``, ``data split`` and ``data calib``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import Debug, Force, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.data.audit import Audit

_SHOWN = 10

Folder = Annotated[
    Path,
    typer.Argument(
        parser=named_path, help="Image folder (class subfolders), a zip of one, CSV with path,label, or list."
    ),
]


def check(
    folder: Folder,
    model: Annotated[Path | None, typer.Option("--model", help="Check class names and calibration leaks.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", parser=named_path, metavar="PATH", help="A set that must share no picture."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Look a data set over: broken files, copies, conflicting classes, leaks (exit 1 when one must be mended)."""
    from edgecv.data.audit import audit_dataset, to_json
    from edgecv.data.folder import open_dataset
    from edgecv.runtime.host import host_facts

    labels: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    calibration: frozenset[str] = frozenset()
    if model is not None:
        from edgecv.runtime.session import open_session

        if manifest := open_session(model).manifest:
            labels, ids = manifest.output.labels, manifest.output.label_ids
            calibration = frozenset(manifest.calibration)
    dataset = open_dataset(folder, labels, ids)
    other = open_dataset(against) if against else None
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        audit = audit_dataset(dataset, other, calibration=calibration, progress=progress)
    emit(
        {"data": folder, **to_json(audit), "host": host_facts(n=audit.images, seed=seed)},
        as_json=as_json,
        quiet=quiet,
        tables=[(str(folder), ["what", "found"], _rows(audit))],
        notes=_notes(audit),
        verdict=_verdict(audit),
        next_command="",
    )
    raise typer.Exit(0 if audit.ok else 1)


def _verdict(audit: "Audit") -> str:
    found: dict[str, Sequence[object]] = {
        "broken": audit.broken,
        "groups in conflicting classes": audit.conflicting,
        "shared with the other set": audit.shared,
        "used to calibrate the model": audit.calibration,
    }
    return "ok" if audit.ok else "to mend: " + ", ".join(f"{len(x)} {what}" for what, x in found.items() if x)


def _rows(audit: "Audit") -> list[list[str]]:
    counts = sorted(audit.images_per_class.values())
    spread = f"{len(counts)} ({counts[0]} to {counts[-1]} images each)" if counts else "none: images without labels"
    return [
        ["images", f"{audit.images}"],
        ["classes", spread],
        ["formats", ", ".join(f"{name} {count}" for name, count in audit.formats.items())],
        ["width, height", f"{_range(audit.width_range)}, {_range(audit.height_range)} pixels"],
        ["other files skipped", f"{audit.skipped}"],
        ["broken", f"{len(audit.broken)}"],
        ["same picture, other class", f"{len(audit.conflicting)} groups"],
        ["identical in one class", f"{len(audit.identical)} groups"],
        ["nearly identical in one class", f"{len(audit.similar)} groups"],
        ["shared with the other set", f"{len(audit.shared)}"],
        ["used to calibrate the model", f"{len(audit.calibration)}"],
    ]


def _notes(audit: "Audit") -> list[str]:
    return [
        *_listed("broken", [f"{path}: {why}" for path, why in audit.broken]),
        *_listed("other class", [" = ".join(group) for group in audit.conflicting]),
        *_listed("identical", [" = ".join(group) for group in audit.identical]),
        *_listed("nearly identical", [" ~ ".join(group) for group in audit.similar]),
        *_listed("shared", [f"{here} ~ {there}" for here, there in audit.shared]),
        *_listed("calibration", audit.calibration),
    ]


def split(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="OUT.csv gives OUT.train.csv, OUT.val.csv, …")],
    val: Annotated[float, typer.Option("--val", min=0, max=1, help="Share for validation.")] = 0.1,
    test: Annotated[float, typer.Option("--test", min=0, max=1, help="Share for the test.")] = 0.1,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Divide a data set into train, val and test: by class, and no picture or copy of it on two sides."""
    from edgecv.data.dataset import unreadable_notes
    from edgecv.data.folder import open_dataset
    from edgecv.data.split import check_list_place, split_dataset, write_lists
    from edgecv.files import check_output
    from edgecv.runtime.host import host_facts

    stem = output.with_suffix("") if output.suffix.lower() == ".csv" else output
    names = ["train", *(["val"] if val else []), *(["test"] if test else [])]
    paths = {name: stem.with_name(f"{stem.name}.{name}.csv") for name in names}
    dataset = open_dataset(folder)
    for path in paths.values():
        check_output(path, force=force, inputs=(folder,))
        check_list_place(path, dataset)
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        sides = split_dataset(dataset, val, test, seed, progress)
    write_lists({paths[name]: side for name, side in sides.items()})
    counts = {name: len(side) for name, side in sides.items()}
    emit(
        {
            "data": folder,
            "files": paths,
            "images": counts,
            "unreadable": len(dataset.unreadable),
            "host": host_facts(n=len(dataset), seed=seed),
        },
        as_json=as_json,
        quiet=quiet,
        tables=[
            (
                f"{len(dataset)} images of {folder}",
                ["side", "images", "classes", "file"],
                [
                    [name, f"{len(side)}", f"{len(set(side.class_indices) - {-1})}", str(paths[name])]
                    for name, side in sides.items()
                ],
            )
        ],
        notes=unreadable_notes(dataset),
        verdict="no picture is on two sides",
        artifact=paths["train"],
        next_command=f"edgecv data calib {paths['train']} -n 100 -o {stem.with_name(stem.name + '.calib.csv')}",
    )


def calib(
    folder: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="X.csv in the data's folder or above; or a new folder for copies.")
    ],
    count: Annotated[int, typer.Option("-n", min=1, help="Images to draw.")] = 100,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Draw images to calibrate with from the training side, every class alike."""
    from edgecv.data.calibration import copy_images, draw_calibration
    from edgecv.data.dataset import unreadable_notes
    from edgecv.data.folder import open_dataset
    from edgecv.data.split import check_list_place, write_lists
    from edgecv.files import check_output
    from edgecv.runtime.host import host_facts

    dataset = open_dataset(folder)
    is_list = output.suffix.lower() == ".csv"
    if is_list:
        check_output(output, force=force, inputs=(folder,))
        check_list_place(output, dataset)
    drawn = draw_calibration(dataset, count, seed)
    if is_list:
        write_lists({output: drawn})
    else:
        copy_images(drawn, output)
    classes = len(set(drawn.class_indices) - {-1})
    emit(
        {
            "data": folder,
            "file": output,
            "classes": classes,
            "unreadable": len(dataset.unreadable),
            "host": host_facts(n=len(drawn), seed=seed),
        },
        as_json=as_json,
        quiet=quiet,
        notes=unreadable_notes(dataset),
        verdict=f"{len(drawn)} of {len(dataset)} images, {classes} of {len(dataset.class_names)} classes",
        artifact=output,
        next_command=f"edgecv quantize --int8 --data {output}",
    )


def _listed(what: str, lines: Sequence[str]) -> list[str]:
    shown = [f"{what}: {line}" for line in lines[:_SHOWN]]
    return [*shown, f"{what}: … {len(lines) - _SHOWN} more (see --json)"] if len(lines) > _SHOWN else shown


def _range(values: tuple[int, int]) -> str:
    return f"{values[0]}" if values[0] == values[1] else f"{values[0]}–{values[1]}"
