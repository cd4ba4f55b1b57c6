"""A model is asked once, with a few tokens, to see whether it answers."""

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
    """A small question to one model alone. Its cost is recorded like that of any other call.

    clients: those of `api.open_clients`.
    """
    from moa_cli.api import ask_async
    from moa_cli.profile import Aggregator, Profile

    writer = Aggregator(model=model, max_tokens=_TOKENS, timeout=_SECONDS)
    profile = Profile(name="trial", rounds=0, aggregator=writer)
    return await ask_async(_QUESTION, profile=profile, clients=clients)


def trouble_of(turn: Turn) -> Failure | None:
    """Why a model does not answer, or None.

    A model that ends without a word does answer: so few tokens are too few for many models that
    think.
    """
    from moa_cli.engine.calls.attempt import WORDLESS

    first = turn.causes[0] if turn.causes else turn.error
    return None if first is None or first.message in WORDLESS else first
