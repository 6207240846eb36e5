"""The typer app; turns an error into one line on stderr and the exit code of its class."""

import logging
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

import edgecv
from edgecv.cli.interrupt import end_on_signals
from edgecv.cli.options import restored_policy
from edgecv.cli.output import open_closed_streams, say
from edgecv.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EdgecvError
from edgecv.runtime.caution import try_models_first

MAX_MESSAGE = 400
"""Characters of an error message: a library's own text inside it can be pages long."""

COMMANDS: dict[str, str] = {
    "doctor": "edgecv.cli.doctor:doctor",
    "models": "edgecv.cli.models:models",
    "train": "edgecv.cli.train:train",
    "distill": "edgecv.cli.distill:distill",
    "prune": "edgecv.cli.prune:prune",
    "factorize": "edgecv.cli.factorize:factorize",
    "export": "edgecv.cli.export:export",
    "quantize": "edgecv.cli.quantize:quantize",
    "run": "edgecv.cli.run:run_recipe",
    "demo": "edgecv.cli.demo:demo",
    "inspect": "edgecv.cli.inspect:inspect",
    "verify": "edgecv.cli.verify:verify",
    "eval": "edgecv.cli.eval:evaluate",
    "bench": "edgecv.cli.bench:bench",
    "predict": "edgecv.cli.predict:predict",
    "compare": "edgecv.cli.compare:compare",
}
"""Every command, in the order ``--help`` shows them: name -> ``module:function``."""

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "recipe": ("Recipes: the chain as a file, for edgecv run.", {"new": "edgecv.cli.recipe:new"}),
    "data": (
        "Audit, split, sample and look at image folders.",
        {
            "check": "edgecv.cli.data:check",
            "split": "edgecv.cli.data:split",
            "calib": "edgecv.cli.data:calib",
            "show": "edgecv.cli.data_show:show",
        },
    ),
    "devices": (
        "Device profiles, and older x86 CPUs emulated on this machine.",
        {
            "list": "edgecv.cli.devices:list_devices",
            "show": "edgecv.cli.devices:show",
            "probe": "edgecv.cli.devices:probe",
            "check": "edgecv.cli.devices:check",
            "setup": "edgecv.cli.devices:setup",
        },
    ),
}
"""Command groups: name -> (help, commands)."""


def build_app() -> typer.Typer:
    """Return the command-line app with every command of :data:`COMMANDS`; imports nothing heavy."""
    app = typer.Typer(
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, target in COMMANDS.items():
        app.command(name)(_load(target))
    for group, (text, commands) in GROUPS.items():
        sub = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
        for name, target in commands.items():
            sub.command(name)(_load(target))
        app.add_typer(sub, name=group)
    return app


def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    """From a PyTorch checkpoint to a verified, fast, small ONNX model on a given device."""
    if version:
        typer.echo(edgecv.__version__)
        raise typer.Exit(EXIT_OK)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _load(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(import_module(module), function)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program name; ``sys.argv[1:]`` when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if not debug:  # what libraries say on their own account is no news to the user
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
    try:
        with restored_policy():
            result = build_app()(args=arguments, standalone_mode=False)
        if result == EXIT_INTERRUPTED:  # what typer makes of Ctrl-C
            return _interrupted()
        return result if isinstance(result, int) else EXIT_OK
    except typer.Exit as e:
        return int(e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except EdgecvError as e:
        if debug:
            raise
        say(f"error: {_one_line(str(e))}")
        return e.exit_code
    except Exception as e:
        if hasattr(e, "format_message"):  # typer's own usage errors
            say(f"error: {_one_line(e.format_message())} See: edgecv --help")
            return 2
        if debug:
            raise
        say(f"bug in edgecv: {type(e).__name__}: {_one_line(str(e))} Run again with --debug and report the traceback.")
        return EXIT_BUG


def _interrupted() -> int:
    say("interrupted; nothing half-written was left behind.")
    return EXIT_INTERRUPTED


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE]


def run() -> None:
    """Console entry point."""
    open_closed_streams()
    end_on_signals()
    try_models_first()
    sys.exit(main())
