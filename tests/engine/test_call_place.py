"""Each request tells where in its turn its call stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from moa_cli.bench.run.journal import call_key
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import CallPlace, Client, Delta, Endpoint, ModelInfo, Request
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, pool
from tests.support.scenarios import LIMITED, REFUSED, Script, play
from tests.support.upstream import Upstream


@dataclass
class Watched:
    """Clients that note each request before it is sent."""

    inner: ClientPool
    requests: list[Request] = field(default_factory=list)

    def endpoint(self, model_name: str) -> Endpoint:
        endpoint = self.inner.endpoint(model_name)
        return replace(endpoint, client=_Watched(self, endpoint.client))

    def known(self, model_name: str) -> ModelInfo:
        return self.inner.known(model_name)

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        return await self.inner.facts(model_name, patience=patience)


@dataclass
class _Watched:
    clients: Watched
    inner: Client

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        self.clients.requests.append(request)
        return self.inner.stream(request)

    async def models(self) -> list[ModelInfo]:
        return await self.inner.models()

    async def aclose(self) -> None:
        await self.inner.aclose()


def places(up: Upstream, profile: Profile, script: Script) -> list[tuple[str, CallPlace]]:
    """The place of each request of a turn, in order of place."""
    play(up, script)

    async def once() -> list[Request]:
        async with aclosing(pool(up)) as inner:
            clients = Watched(inner)
            await deliver(run_turn(profile, asked(), clients, limits=AT_ONCE))
            return clients.requests

    found = []
    for request in asyncio.run(once()):
        assert request.place is not None
        found.append((request.model, request.place))
    return sorted(found, key=lambda pair: (pair[1].layer, pair[1].index))


def test_a_place_is_layer_and_index_in_profile_order(upstream: Upstream) -> None:
    assert places(upstream, mixture("a", "b", rounds=2), {}) == [
        ("a", CallPlace(1, 0)),
        ("b", CallPlace(1, 1)),
        ("a", CallPlace(2, 0)),
        ("b", CallPlace(2, 1)),
        ("agg", CallPlace(3, 0)),
    ]


def test_equal_requests_of_a_layer_are_samples_of_each_other(upstream: Upstream) -> None:
    profile = mixture(
        lab("a", samples=2), "b", lab("a", name="again"), lab("a", temperature=1), lab("b", seed=7)
    )
    assert places(upstream, profile, {}) == [
        ("a", CallPlace(1, 0, 0)),
        ("a", CallPlace(1, 1, 1)),
        ("b", CallPlace(1, 2, 0)),
        # However it is called on screen, it is sent what the first two are.
        ("a", CallPlace(1, 3, 2)),
        ("a", CallPlace(1, 4, 0)),
        ("b", CallPlace(1, 5, 0)),
        ("agg", CallPlace(2, 0)),
    ]


def test_samples_with_seeds_of_their_own_are_different_requests(upstream: Upstream) -> None:
    assert places(upstream, mixture(lab("a", samples=2, seed=3)), {})[:2] == [
        ("a", CallPlace(1, 0, 0)),
        ("a", CallPlace(1, 1, 0)),
    ]


def test_attempts_of_a_call_share_its_place_and_fallbacks_have_their_own(
    upstream: Upstream,
) -> None:
    profile = mixture("a", aggregator=lab("agg", fallbacks=["lab:second", "lab:third"]))
    script: Script = {"a": [LIMITED], "agg": REFUSED, "second": [LIMITED]}
    assert places(upstream, profile, script) == [
        ("a", CallPlace(1, 0)),
        ("a", CallPlace(1, 0)),
        ("agg", CallPlace(2, 0)),
        ("second", CallPlace(2, 1)),
        ("second", CallPlace(2, 1)),
    ]


def test_without_rounds_the_aggregator_is_in_the_first_layer(upstream: Upstream) -> None:
    assert places(upstream, mixture("a", rounds=0), {}) == [("agg", CallPlace(1, 0))]


def test_a_place_is_no_part_of_what_is_asked() -> None:
    request = Request(model="a", messages=(Message("user", "Rain?"),))
    placed = replace(request, place=CallPlace(2, 1))
    assert placed == request
    assert call_key("item", 0, "lab:a", placed) == call_key("item", 0, "lab:a", request)
    # As journals of earlier versions name it.
    assert call_key("item", 0, "lab:a", request) == "632e002f4e30bd63c0182621acf5df10"
