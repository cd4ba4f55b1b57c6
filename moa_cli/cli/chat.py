"""`moa chat`: a conversation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from moa_cli.cli.options import Compact, NoLive, Plain, ShowReasoning, takes_profile
from moa_cli.cli.saving import Cid, Continue, NoSave, open_store, resume
from moa_cli.profile import Profile

__all__ = ["chat"]


@takes_profile
def chat(
    profile: Profile,
    concurrency: int | None,
    plain: Plain = False,
    no_live: NoLive = False,
    compact: Compact = False,
    show_reasoning: ShowReasoning = False,
    continue_: Continue = False,
    cid: Cid = None,
    no_save: NoSave = False,
    vi: Annotated[bool, typer.Option("--vi", help="Edit with vi's keys.")] = False,
) -> None:
    """Hold a conversation in the terminal."""
    from moa_cli.chat.keeping import Kept
    from moa_cli.chat.loop import run
    from moa_cli.chat.options import ChatOptions
    from moa_cli.cli import wiring

    options = ChatOptions(
        plain=plain, live=not no_live, compact=compact, reasoning=show_reasoning, vi=vi
    )
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    resumed = resume(last=continue_, identity=cid)
    store = open_store(no_save=no_save)
    raise typer.Exit(
        run(
            profile,
            options,
            kept=Kept(store, resumed.id, resumed.conversation),
            clients=wiring.client_pool,
            limits=wiring.limits(concurrency),
            # Over plain lines there is nobody to be told of keys.
            greeting=wiring.greeting(profile) if at_terminal else wiring.introduction(profile),
        )
    )
