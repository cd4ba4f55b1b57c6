"""`moa ask`: one prompt, one reply."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from moa_cli.cli.budget import MaxCost, MaxTotalTokens, ShowUsage, caps
from moa_cli.cli.options import (
    Compact,
    Live,
    Plain,
    ShowReasoning,
    display,
    takes_profile,
    typed_or,
)
from moa_cli.cli.saving import Cid, Continue, Save, open_books, resume
from moa_cli.core.errors import UsageError
from moa_cli.profile import Profile

__all__ = ["ask"]


class Output(StrEnum):
    """What is printed on standard output."""

    text = "text"
    json = "json"
    jsonl = "jsonl"


Prompt = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="The question; standard input is added to it."),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "-f",
        "--file",
        metavar="PATH",
        help="Add a text file to the prompt; - is standard input.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object: reply, proposals, usage.")
]
OutputForm = Annotated[
    Output, typer.Option("--output", help="What to print; jsonl is the stream of events.")
]
ShowProposals = Annotated[
    bool, typer.Option("--show-proposals", help="Print each proposal in full, on stderr.")
]
NoStream = Annotated[bool, typer.Option("--no-stream", help="Print the reply once it is whole.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Tell each step and the usage on stderr.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the calls and exact prompts; send nothing.")
]
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Print what the turn would take; send no prompt.")
]
SaveProfile = Annotated[
    str | None,
    typer.Option("--save-profile", metavar="NAME", help="Keep the settings in force as a profile."),
]


@takes_profile
def ask(
    profile: Profile,
    concurrency: int | None,
    prompt: Prompt = None,
    file: Files = None,
    json: Json = False,
    output: OutputForm = Output.text,
    show_proposals: ShowProposals = False,
    no_stream: NoStream = False,
    plain: Plain = None,
    live: Live = None,
    compact: Compact = None,
    show_reasoning: ShowReasoning = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    usage: ShowUsage = None,
    dry_run: DryRun = False,
    estimate: Estimate = False,
    max_cost: MaxCost = None,
    max_total_tokens: MaxTotalTokens = None,
    save_profile: SaveProfile = None,
    continue_: Continue = False,
    cid: Cid = None,
    save: Save = None,
) -> None:
    """Ask once, and print the reply."""
    from moa_cli.cli import oneshot, wiring

    form = _form(output, json=json)
    oneshot.save_profile(profile, save_profile, quiet=quiet)
    text = oneshot.compose_prompt(prompt or [], file or [], needed=save_profile is None)
    if not text:
        return
    if not quiet:
        oneshot.tell_of_bytes(prompt or [])
    resumed = resume(last=continue_, identity=cid)
    if dry_run or estimate:
        oneshot.foretell(profile, text, resumed, prompts=dry_run, json=json)
        return
    show = oneshot.Show(
        output=form,
        stream=not no_stream,
        quiet=quiet,
        verbose=verbose,
        usage=verbose or typed_or(usage, wiring.config().usage),
        show_proposals=show_proposals,
        progress=live is False,
        **display(plain, live, compact, show_reasoning),
    )
    books = open_books(save=save)
    limits = caps(max_cost, max_total_tokens, books.spending, one_turn=True)
    raise typer.Exit(oneshot.run(profile, text, show, concurrency, resumed, books, limits))


def _form(output: Output, *, json: bool) -> Literal["text", "json", "jsonl"]:
    """What to print. Raises UsageError if it is said in two ways."""
    if not json:
        return output.value
    if output is not Output.text:
        raise UsageError("--json and --output are two ways of saying it: give one")
    return "json"
