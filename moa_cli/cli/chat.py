"""`moa chat`: a conversation."""

from __future__ import annotations

import typer

from moa_cli.cli.options import takes_profile
from moa_cli.profile import Profile

__all__ = ["chat"]


@takes_profile
def chat(profile: Profile, concurrency: int | None) -> None:
    """Hold a conversation in the terminal."""
    from moa_cli.chat.loop import run
    from moa_cli.cli import wiring

    raise typer.Exit(
        run(
            profile,
            clients=wiring.client_pool,
            limits=wiring.limits(concurrency),
            greeting=wiring.introduction(profile),
        )
    )
