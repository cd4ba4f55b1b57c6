"""`moa chat`: a conversation."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from functools import partial
from typing import Annotated

from typer import Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.going_on import own_mixture, take_up
from moa_cli.cli.options import (
    Cid,
    Continue,
    Display,
    Save,
    TurnCaps,
    TypedMixture,
    option_of,
    takes_profile,
    typed_or,
)
from moa_cli.cli.output import say
from moa_cli.cli.saving import choose, cut_off, open_books, resume, saves
from moa_cli.core.errors import UsageError


@takes_profile
def chat(
    concurrency: int | None,
    typed: TypedMixture,
    *,
    display: Display,
    continue_: Continue = False,
    cid: Cid = None,
    resume_: Annotated[
        bool, Option("--resume", help="Choose the conversation to continue from a list.")
    ] = False,
    save: Save = None,
    caps: TurnCaps,
    vi: Annotated[bool | None, option_of("vi")] = None,
) -> None:
    """Hold a conversation in the terminal."""
    from moa_cli.chat.commands.registry import ChatOptions
    from moa_cli.chat.keeping import SavedConversation
    from moa_cli.chat.loop import run
    from moa_cli.observability.commands import CommandTraces

    settings = wiring.config()
    options = display.over(
        ChatOptions(
            vi=typed_or(vi, settings.vi),
            keep_files=settings.keep_files,
            confirm_tokens=settings.confirm_tokens,
            prompts=settings.prompt_history,
            save=saves(save),
        )
    )
    if resume_:
        if continue_ or cid is not None:
            raise UsageError("--resume, -c and --cid cannot be used together")
        cid = choose(accessible=options.accessible)
        if cid is None:
            return
    past = resume(cid) if continue_ or cid is not None else None
    profile, *told = take_up(past, typed) if past else (typed.resolved(),)
    books = open_books(save=save)
    budgets = (*caps.budgets(books.spending, one_turn=False), *wiring.session_budget("turns"))
    # Input from a pipe is plain lines without keys, so the hints on keys are left out.
    at_terminal = sys.stdin.isatty()
    greeting = (
        [*wiring.greeting(profile), *cut_off(books.store, past)]
        if at_terminal
        else wiring.introduction(profile, switching=True)
    )
    with closing(CommandTraces("chat", os.environ, say)) as traces:
        code = run(
            profile,
            options,
            kept=SavedConversation(
                books.store,
                past.identity if past else None,
                past.conversation if past else None,
                books.spending,
            ),
            clients=partial(wiring.client_pool, headers=traces.headers),
            limits=wiring.limits(concurrency, budgets),
            greeting=[*told, *greeting, *traces.notes()],
            traces=traces,
            own_mixture=partial(own_mixture, typed),
        )
    raise Exit(code)
