"""Put a client of your own in the place of an endpoint: here one that answers without a network.

The engine asks `Clients` for the endpoint of a model name, and streams from its `Client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from moa_cli import (
    Aggregator,
    Client,
    Clients,
    Conversation,
    Delta,
    Endpoint,
    ModelInfo,
    Price,
    Profile,
    Proposer,
    Request,
    deliver,
    run_turn,
)


class Echo(Client):
    """Answers with the number of messages that it was sent."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The completion, in two pieces."""
        yield Delta(text=f"{request.model} saw ")
        yield Delta(text=f"{len(request.messages)} messages", finish_reason="stop")

    async def models(self) -> list[ModelInfo]:
        """What there is."""
        return [ModelInfo(id="echo")]

    async def aclose(self) -> None:
        """There is nothing to close."""


class Echoes(Clients):
    """Leads every model name to an `Echo`."""

    def endpoint(self, model_name: str) -> Endpoint:
        """The endpoint of a model."""
        return Endpoint(client=Echo(), model=model_name, provider="echo")

    def known(self, model_name: str) -> ModelInfo:
        """What is known of a model: it costs nothing."""
        return ModelInfo(id=model_name, price=Price(prompt=0.0, completion=0.0))

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """The same; there is nobody to ask."""
        return self.known(model_name)


async def main() -> None:
    """Run a turn over them."""
    profile = Profile(
        name="echoes",
        proposers=(Proposer(model="first"), Proposer(model="second")),
        aggregator=Aggregator(model="last"),
    )
    events = run_turn(profile, Conversation().ask("Hello"), Echoes())
    turn = await deliver(events)
    for proposal in turn.proposals[0]:
        print(proposal.text)
    print(turn.reply)


if __name__ == "__main__":
    asyncio.run(main())
