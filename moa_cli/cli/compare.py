"""`moa compare`: one's own prompts, answers side by side and blind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moa_cli.cli.bench.options import Best, arm_names
from moa_cli.cli.budget import amount
from moa_cli.cli.options import Live, Plain, split_names, takes_profile
from moa_cli.cli.saving import Save
from moa_cli.core.errors import UsageError
from moa_cli.profile import Profile

__all__ = ["compare"]

Prompts = Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to ask.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="Prompts, one a line, or (.jsonl) lines of {prompt or messages}.",
    ),
]
Arms = Annotated[
    str,
    typer.Option(
        "--arms",
        metavar="NAMES",
        help="What is compared, by commas: mixture, self (Self-MoA: one proposer in the place of"
        " all), single (each model alone).",
    ),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profiles", metavar="NAMES", help="Compare these profiles, by commas, and no arms of one."
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost", metavar="USD", min=0, callback=amount, help="Most that all prompts may cost."
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Makes the order of the answers repeat.")
]
Results = Annotated[
    bool, typer.Option("--results", help="Print what was chosen so far, and ask nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="With --results: print a JSON array.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="SPAN", help="With --results: not older than, such as 7d."),
]


@takes_profile
def compare(
    profile: Profile,
    concurrency: int | None,
    prompts: Prompts = None,
    file: PromptFile = None,
    arms: Arms = "mixture,single",
    best: Best = None,
    profiles: Profiles = None,
    max_cost: MaxCost = None,
    seed: Seed = None,
    results: Results = False,
    json: AsJson = False,
    since: Since = None,
    save: Save = None,
    plain: Plain = None,
    live: Live = None,
) -> None:
    """Choose between answers without knowing whose they are."""
    if results:
        if prompts or file is not None:
            raise UsageError("--results asks nothing", hint="leave the prompts out")
        from moa_cli.cli import compare_results

        compare_results.run(since, json=json)
        return
    if json or since is not None:
        raise UsageError("--json and --since belong to --results")
    from moa_cli.cli import compare_run

    options = compare_run.Options(
        prompts=tuple(prompts or ()),
        file=file,
        arms=arm_names(arms),
        best=best,
        profiles=split_names(profiles),
        concurrency=concurrency,
        max_cost=max_cost,
        seed=seed,
        save=save,
        plain=plain,
        live=live,
    )
    raise typer.Exit(compare_run.run(profile, options))
