"""The endpoints that answer: one turn a request, whatever its wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from moa_cli.core.conversation import Proposal, Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.outcomes import refusal_of
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import run_turn
from moa_cli.engine.merging import mergeable
from moa_cli.server import loops
from moa_cli.server.accesslog import Record
from moa_cli.server.delivery import Reply, StreamedReply
from moa_cli.server.errors import ApiError, from_turn, stopping
from moa_cli.server.mixtures import Mixture
from moa_cli.server.service import Service
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.wire import Wire

# For the whole body, from its head on.
_BODY_SECONDS = 30.0
_CLOSE = {"connection": "close"}


class TurnEndpoint:
    """The endpoint of a wire, an ASGI application. Raises ApiError for what it does not answer
    itself."""

    def __init__(self, service: Service, wire: Wire) -> None:
        self._service = service
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, record = self._service, scope["moa.record"]
        headers = Headers(scope=scope)
        check_kind(headers)
        # Before the body: what will be refused need not be read.
        service.limiter.check()
        loops.travelled(headers.get(loops.HEADER, ""), service.address.id)
        body = await read_all(headers, receive, service.options.max_body)
        asked, parsed = self._wire.read(body, headers)
        asked = replace(asked, conversation=await service.files.read(asked.conversation))
        mixture = await service.mixtures.for_request(asked)
        asked = replace(asked, usage=asked.mixture.usage or service.options.usage or asked.usage)
        service.note_ignored(asked.ignored)
        record.model, record.stream = asked.model, asked.stream
        show = asked.mixture.show_proposals
        encoder = self._wire.encoder(
            asked,
            parsed,
            fingerprint=mixture.fingerprint,
            show_proposals=service.options.show_proposals if show is None else show,
        )
        reply = (StreamedReply if asked.stream else Reply)(send, encoder)
        turn = asyncio.create_task(self._turn(asked, mixture, reply, record))
        service.running.add(turn)
        try:
            await self._until_done(turn, reply, receive, record)
        except ApiError as error:
            if not reply.begun:
                raise
            record.code = error.code
            await reply.fail(error)
        finally:
            service.running.discard(turn)

    async def _until_done(
        self, turn: asyncio.Task[None], reply: Reply, receive: Receive, record: Record
    ) -> None:
        """Wait for the turn; one whose client leaves is cancelled. Raises what the turn does."""
        watch = asyncio.create_task(reply.attend(receive))
        try:
            await asyncio.wait({turn, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not turn.done()
            turn.cancel()
            watch.cancel()
            await asyncio.gather(turn, watch, return_exceptions=True)
        if turn.cancelled():
            if self._service.cut:
                raise stopping()
            if left:
                watch.result()
                record.status = 499
                return
        turn.result()

    async def _turn(self, asked: Asked, mixture: Mixture, reply: Reply, record: Record) -> None:
        async with self._service.limiter.turn():
            first = await self._run(asked, mixture, record, reply.take)
            turns = [first]
            if asked.choices > 1:
                turns += await self._more(asked, mixture, record, reply, first)
            await reply.end(turns)

    async def _more(
        self, asked: Asked, mixture: Mixture, record: Record, reply: Reply, first: Turn
    ) -> list[Turn]:
        """The other choices: written side by side, from the proposals of the first."""
        kept = mergeable(first.proposals) or None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._run(asked, mixture, record, partial(reply.take, choice=choice), kept)
                    )
                    for choice in range(1, asked.choices)
                ]
        except* ApiError as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _run(
        self,
        asked: Asked,
        mixture: Mixture,
        record: Record,
        forward: Callable[[Event], Awaitable[None]],
        references: Sequence[Proposal] | None = None,
    ) -> Turn:
        """One turn; raises ApiError if it gives no reply."""
        service = self._service
        fold = TurnFold()
        events = run_turn(
            mixture.profile,
            asked.conversation,
            service.clients,
            limits=replace(service.limits, reply_held=not asked.stream),
            references=references,
        )
        try:
            await deliver(events, service.metrics, fold=fold, forward=forward)
        finally:
            # What was in flight when the client left was paid for, too.
            turn = fold.turn()
            record.usage = (record.usage or Usage()) + turn.usage
            service.metrics.ended(asked.model, turn)
        if turn.status != "finished" and refusal_of(turn) is None:
            raise from_turn(turn)
        return turn


def check_kind(headers: Headers) -> None:
    """Raise ApiError if the body is not said to be plain JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # Besides: a web page can send other kinds anywhere without asking first.
    if kind != "application/json":
        raise ApiError(415, "the body must be JSON; send `Content-Type: application/json`")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "a compressed body is not supported", param="content-encoding")


async def read_all(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body. Raises ApiError if it is too large or too slow."""
    length = headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(499, "the client left")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        why = f"the body did not arrive within {_BODY_SECONDS:g} s"
        raise ApiError(408, why, headers=_CLOSE) from None


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than {limit:,} bytes", code="request_too_large", headers=_CLOSE
    )
