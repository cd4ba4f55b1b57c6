"""`moa batch`: many prompts, one line of JSON for each answer."""

from __future__ import annotations

from typing import Annotated

import typer

from moa_cli.cli.bench.options import ProviderConcurrency
from moa_cli.cli.budget import amount
from moa_cli.cli.options import Live, takes_profile
from moa_cli.profile import Profile

__all__ = ["batch"]

Source = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="Lines of {prompt or messages, id?, …}, or of one prompt each; - is standard input.",
    ),
]
Target = Annotated[
    str,
    typer.Argument(metavar="OUT", help="Where the lines of answers go; - is standard output."),
]
AsLines = Annotated[
    bool | None,
    typer.Option(
        "--lines/--jsonl",
        help="What IN holds: a prompt on each line, or JSON; else as it is named (.jsonl, .ndjson"
        " and .json are JSON, and so is standard input).",
    ),
]
AsFinished = Annotated[
    bool,
    typer.Option("--as-finished", help="Write lines as answers end, not in the order of IN."),
]
Proposals = Annotated[bool, typer.Option("--proposals", help="Write every layer's proposals too.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="An answer that lost a proposer has failed; else it is marked (`lost`)."
    ),
]
Limit = Annotated[
    int | None, typer.Option("-n", "--limit", metavar="N", min=1, help="The first N prompts only.")
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        metavar="USD",
        min=0,
        callback=amount,
        help="Most that the whole batch may cost, all its sessions together.",
    ),
]
Save = Annotated[
    bool | None,
    typer.Option(
        "--save/--no-save",
        help="Keep OUT.state, by which the same command goes on; else `save` in the settings says.",
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "-y", "--yes", help="Do not ask before anything is sent; without a terminal nobody is."
    ),
]


@takes_profile
def batch(
    profile: Profile,
    concurrency: int | None,
    source: Source,
    target: Target,
    lines: AsLines = None,
    as_finished: AsFinished = False,
    proposals: Proposals = False,
    strict: Strict = False,
    limit: Limit = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    yes: Yes = False,
    live: Live = None,
    save: Save = None,
) -> None:
    """Answer many prompts; the same command goes on where it was stopped."""
    from moa_cli.cli import batch_run

    options = batch_run.Options(
        source=source,
        target=target,
        lines=lines,
        as_finished=as_finished,
        proposals=proposals,
        strict=strict,
        limit=limit,
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        live=live,
        save=save,
    )
    raise typer.Exit(batch_run.run(profile, options))
