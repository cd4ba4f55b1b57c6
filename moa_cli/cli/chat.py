"""`moa chat`: a conversation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from moa_cli.cli.budget import MaxCost, MaxTotalTokens, caps
from moa_cli.cli.options import (
    Compact,
    Live,
    Plain,
    ShowReasoning,
    display,
    takes_profile,
    typed_or,
)
from moa_cli.cli.saving import Choose, Cid, Continue, Save, choose, open_books, resume, saves
from moa_cli.config.schema import CONFIG_KEYS
from moa_cli.config.toml import sentence
from moa_cli.core.errors import UsageError
from moa_cli.profile import Profile

__all__ = ["chat"]

Vi = Annotated[bool | None, typer.Option("--vi/--no-vi", help=sentence(CONFIG_KEYS["vi"]))]


@takes_profile
def chat(
    profile: Profile,
    concurrency: int | None,
    plain: Plain = None,
    live: Live = None,
    compact: Compact = None,
    show_reasoning: ShowReasoning = None,
    continue_: Continue = False,
    cid: Cid = None,
    resume_: Choose = False,
    save: Save = None,
    max_cost: MaxCost = None,
    max_total_tokens: MaxTotalTokens = None,
    vi: Vi = None,
) -> None:
    """Hold a conversation in the terminal."""
    from moa_cli.chat.keeping import Kept
    from moa_cli.chat.loop import run
    from moa_cli.chat.options import ChatOptions
    from moa_cli.cli import wiring

    options = ChatOptions(
        vi=typed_or(vi, wiring.config().vi),
        prompts=wiring.config().prompt_history,
        save=saves(save),
        **display(plain, live, compact, show_reasoning),
    )
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    if resume_:
        if continue_ or cid is not None:
            raise UsageError("--resume, -c and --cid are three ways of saying it: give one")
        cid = choose()
        if cid is None:
            return
    resumed = resume(last=continue_, identity=cid)
    books = open_books(save=save)
    limits = caps(max_cost, max_total_tokens, books.spending, one_turn=False)
    raise typer.Exit(
        run(
            profile,
            options,
            kept=Kept(books.store, resumed.id, resumed.conversation, books.spending),
            clients=wiring.client_pool,
            limits=wiring.limits(concurrency, limits),
            budget=wiring.config().budget.session,
            # Over plain lines there is nobody to be told of keys.
            greeting=wiring.greeting(profile)
            if at_terminal
            else wiring.introduction(profile, switching=True),
        )
    )
