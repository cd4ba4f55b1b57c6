"""Options that the commands of `moa bench` share, in addition to those of `cli.options`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli.exit_codes import BUDGET
from moa_cli.cli.options import max_cost_option
from moa_cli.cli.output import say

if TYPE_CHECKING:
    from moa_cli.core.conversation import Failure

MaxCost = Annotated[
    float | None,
    max_cost_option("Maximum cost of the whole run, all its sessions together."),
]

StopAfter = Annotated[
    int | None,
    typer.Option(
        "--stop-after",
        metavar="N",
        min=0,
        help="Stop when a model fails in the same way for N items in a row; 0: never. Default: 3.",
    ),
]


def judge_option(help: str) -> Any:
    """The option that names a judge of a run. help: it should also say what the default is."""
    return typer.Option("--judge", metavar="MODEL", help=help)


CountedJudge = Annotated[
    str | None,
    judge_option("The judge whose judgements count; by default known answers, or the only judge."),
]


def capped_exit(capped: Failure) -> typer.Exit:
    """The exit after a cap has ended a run. capped: which cap."""
    say(f"{capped.message} (to resume, run the same command with a higher cap)")
    return typer.Exit(BUDGET)
