"""``edgecv devices``: the profiles edgecv knows, this machine's own, and its emulated devices."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import Debug, Force, Json, Output, Quiet, Seed
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.config.device import DeviceProfile


def list_devices(as_json: Json = False, quiet: Quiet = False, seed: Seed = 0, debug: Debug = False) -> None:
    """List device profiles, and whether the emulator of older x86 CPUs is set up."""
    from dataclasses import asdict

    from edgecv.config.device import known_devices
    from edgecv.errors import EdgecvError
    from edgecv.pipeline.emulator import PREFIX, SETUP, find_emulator
    from edgecv.runtime.host import host_facts

    profiles = known_devices()
    try:
        found = find_emulator()
        state, ready = f"ready: qemu {found.version}", True
    except EdgecvError as e:
        state, ready = str(e), False
    rows = [[p.name, p.title, p.arch, ", ".join(p.providers), p.int8.weights_range] for p in profiles]
    emit(
        {
            "devices": [asdict(p) for p in profiles],
            "emulated": {"name": PREFIX, "ready": ready, "state": state},
            "host": host_facts(threads=1, seed=seed, n=len(profiles)),
        },
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["device", "", "architecture", "providers", "int8 weights"], rows)],
        notes=[f"emulated {PREFIX}:CPU (older x86 CPUs, such as Haswell): {state}"],
        verdict=f"{len(profiles)} profiles",
        next_command="edgecv quantize --int8 --data DIR --device NAME" if ready else SETUP,
    )


def show(
    name: Annotated[str, typer.Argument(help="A profile of 'edgecv devices list', or the path of a .toml.")],
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Show one profile, with its sources and what nobody has measured on the device."""
    from dataclasses import asdict

    from edgecv.config.device import load_device
    from edgecv.runtime.host import host_facts

    profile = load_device(name)
    emit(
        {**asdict(profile), "host": host_facts(threads=1, seed=seed, n=1)},
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["fact", "value", ""], _rows(profile))],
        notes=[f"source: {source}" for source in (*profile.sources, *profile.int8.sources)],
        verdict=f"{profile.title}: int8 weights {profile.int8.weights_range}",
        next_command=f"edgecv quantize --int8 --data DIR --device {name}",
    )


def probe(
    output: Output = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Write a profile of this machine: -o my.toml."""
    from dataclasses import asdict

    from edgecv.config.device_text import device_text
    from edgecv.errors import UsageError
    from edgecv.files import check_output, write_bytes
    from edgecv.pipeline.device_probe import probe_machine
    from edgecv.runtime.host import host_facts

    path = output or Path("this-machine.toml")
    if path.suffix != ".toml":
        raise UsageError(f"-o '{path}' is not a .toml, which profiles are; name one such as my-board.toml.")
    check_output(path, force=force)
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        profile = probe_machine(path.stem, progress=progress)
    write_bytes(path, device_text(profile, "Written by edgecv devices probe; 'unmeasured' names guesses.").encode())
    emit(
        {**asdict(profile), "artifact": str(path), "host": host_facts(threads=profile.threads, seed=seed, n=1)},
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["fact", "value", ""], _rows(profile))],
        verdict=f"{profile.title}: {', '.join(profile.providers)} start; int8 weights {profile.int8.weights_range}",
        artifact=path,
        next_command=f"edgecv devices check {path}",
    )


def check(
    name: Annotated[str, typer.Argument(help="A profile of 'edgecv devices list', or the path of a .toml.")],
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Hold a profile against this machine; exit 1 when they contradict each other."""
    from dataclasses import asdict

    from edgecv.config.device import load_device
    from edgecv.errors import GateFailedError
    from edgecv.pipeline.device_probe import check_profile, probe_machine
    from edgecv.runtime.host import host_facts

    profile = load_device(name)
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        checks = check_profile(profile, probe_machine(profile.name, progress=progress))
    wrong = [c.fact for c in checks if c.agrees is False]
    verdict = (
        f"this machine is not as '{profile.name}' says: {', '.join(wrong)}"
        if wrong
        else (f"'{profile.name}' agrees with this machine in {sum(c.agrees is True for c in checks)} facts")
    )
    signs = {True: "yes", False: "NO", None: "not known"}
    emit(
        {
            "verdict": verdict,
            "device": profile.name,
            "checks": [asdict(c) for c in checks],
            "host": host_facts(threads=1, seed=seed, n=len(checks)),
        },
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["fact", "profile", "this machine", "agrees"],
                 [[c.fact, c.stated, c.found, signs[c.agrees]] for c in checks])],
        verdict=verdict,
        next_command="edgecv devices probe -o my.toml" if wrong else f"edgecv devices show {name}",
    )  # fmt: skip
    if wrong:
        raise typer.Exit(GateFailedError.exit_code)


def setup(
    name: Annotated[str, typer.Argument(help="qemu-x86: the emulator of older x86 CPUs.")],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Fetch what an emulated device needs into the user's cache; needs no root and installs nothing."""
    from dataclasses import asdict

    from edgecv.errors import UsageError
    from edgecv.pipeline.emulator import PREFIX
    from edgecv.pipeline.emulator_setup import set_up_emulator
    from edgecv.runtime.host import host_facts

    if name != PREFIX:
        raise UsageError(f"device '{name}' needs no setup here; only '{PREFIX}' does.")
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        emulator, fetched = set_up_emulator(force=force, progress=progress)
    emit(
        {"device": name, "fetched": fetched, **asdict(emulator), "host": host_facts(threads=1, seed=seed, n=1)},
        as_json=as_json,
        quiet=quiet,
        notes=[f"{emulator.program}, sha256 {emulator.sha256}"],
        verdict=f"{name} is {'set up' if fetched else 'ready already'}: qemu {emulator.version}",
        next_command=f"edgecv verify --data DIR --device {name}:Haswell",
    )


def _rows(profile: "DeviceProfile") -> list[list[str]]:
    from dataclasses import asdict

    facts = asdict(profile)
    parts = {key: facts.pop(key) for key in ("limits", "connection", "int8")}
    options = facts.pop("provider_options")
    unmeasured = {*profile.unmeasured, *(f"int8.{field}" for field in profile.int8.unmeasured)}
    hidden = ("schema", "sources", "unmeasured")
    rows = {k: v for k, v in facts.items() if k not in hidden}
    rows |= {f"provider_options.{p}.{k}": v for p, given in options.items() for k, v in given.items()}
    rows |= {f"limits.{k}": v for k, v in parts["limits"].items() if v}
    rows |= {f"connection.{k}": v for k, v in parts["connection"].items() if profile.connection.kind != "none"}
    rows |= {f"int8.{k}": v for k, v in parts["int8"].items() if k not in hidden}
    return [[k, _text(v), "not measured on the device" if k.split(".")[0] in unmeasured or k in unmeasured else ""]
            for k, v in rows.items()]  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    if value == "":
        return "none known"
    return "depends on the machine" if value == 0 and not isinstance(value, bool) else str(value)
