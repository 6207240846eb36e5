"""``edgecv models``."""

from typing import Annotated

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed
from edgecv.cli.output import emit, progress_bar


def models(
    pattern: Annotated[
        str, typer.Argument(help="Shell pattern, e.g. 'mobilenet*' or 'torchvision:*'; or a checkpoint.")
    ] = "*",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Count parameters and MACs of at most so many.")] = 25,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """List networks: parameters, MACs, input size, licence, whether weights are at hand."""
    from edgecv.errors import UsageError, nearest
    from edgecv.pipeline.export import require_extra
    from edgecv.runtime.host import host_facts

    require_extra("train", "torch", "timm", "torchvision")
    from edgecv.nn.describe import describe_network
    from edgecv.nn.names import list_networks

    names = list_networks(pattern)
    if not names:
        raise UsageError(f"no network matches '{pattern}'.{nearest(pattern, list_networks())}")
    facts = []
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        for i, name in enumerate(names[:limit]):
            facts.append(describe_network(name))
            progress("count parameters and MACs", i + 1, min(limit, len(names)))
    rows = [
        [f.name, f"{f.parameters / 1e6:.2f} M", "–" if f.macs is None else f"{f.macs / 1e6:.0f} M",
         "x".join(map(str, f.input_size)), f.license, f.weights]
        for f in facts
    ]  # fmt: skip
    rest = names[len(facts) :]
    emit(
        {
            "networks": [
                {"name": f.name, "parameters": f.parameters, "macs": f.macs, "input_size": f.input_size,
                 "license": f.license, "weights": f.weights}
                for f in facts
            ],
            "names": names,
            "host": host_facts(n=len(names), seed=seed),
        },
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["network", "parameters", "MACs", "input", "licence", "weights"], rows)],
        notes=[", ".join(rest)] if rest else [],
        verdict=f"{len(names)} networks" + (f", {len(facts)} described (--limit)" if rest else ""),
        next_command=_next(facts[0].name, facts[0].weights) if facts else f"edgecv models '{pattern}' --limit 25",
    )  # fmt: skip


def _next(name: str, weights: str) -> str:
    return f"edgecv train {name} --data DIR" if weights == "none" else f"edgecv export {name}"
