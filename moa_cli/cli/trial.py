"""Asks a model once, with a few tokens, to find out whether it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moa_cli.clients.pool import ClientPool
    from moa_cli.core.conversation import Failure, Turn

_QUESTION = "Reply with the word OK."
_TOKENS = 16
# Seconds. A server on this machine may have to load the model first.
_SECONDS = 120.0


async def try_model(model: str, clients: ClientPool) -> Turn:
    """Ask one model a small question. The cost is recorded like that of any other call.

    clients: made by `api.open_clients`.
    """
    from moa_cli.api import ask_async
    from moa_cli.profile import Aggregator, Profile

    writer = Aggregator(model=model, max_tokens=_TOKENS, timeout=_SECONDS)
    profile = Profile(name="trial", rounds=0, aggregator=writer)
    return await ask_async(_QUESTION, profile=profile, clients=clients)


def trouble_of(turn: Turn) -> Failure | None:
    """Why a model does not answer, or None if it does.

    A model that ends without any text counts as answering: the few tokens are not enough for many
    reasoning models.
    """
    from moa_cli.engine.calls.attempt import WORDLESS

    first = turn.causes[0] if turn.causes else turn.error
    return None if first is None or first.message in WORDLESS else first
