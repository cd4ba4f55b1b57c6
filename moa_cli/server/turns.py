"""The endpoints that answer requests: one turn for each request, on every wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from moa_cli.core.conversation import Proposal, Turn, Usage
from moa_cli.core.events import AggregatorDelta, Event
from moa_cli.core.outcomes import refusal_of
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import run_turn
from moa_cli.engine.calls.attempt import WORDLESS
from moa_cli.engine.calls.silence import Watch
from moa_cli.engine.merging import mergeable
from moa_cli.observability.tracing import Tracing, TurnTrace
from moa_cli.server import loops
from moa_cli.server.accesslog import Record
from moa_cli.server.auth import key_of
from moa_cli.server.delivery import Reply, StreamedReply
from moa_cli.server.errors import ApiError, from_turn, stopping
from moa_cli.server.http_server import CONNECTION
from moa_cli.server.keys import ClientKey
from moa_cli.server.reading import Mixture
from moa_cli.server.service import Service, Setup
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.wire import Wire

# Seconds to wait for the whole body after the head. Each byte that arrives adds to them, so that a
# large body may come over a slow line, of this many bytes per second.
_BODY_SECONDS = 30.0
_SLOWEST_LINE = 20_000
_CLOSE = {"connection": "close"}


class ClientConnection(Protocol):
    """The connection of a request."""

    def calling(self, call: Callable[[], None]) -> AbstractContextManager[None]:
        """While inside, `call` is called once the client leaves, or soon if it has left already."""


@dataclass(frozen=True)
class _Made:
    """Everything that the turn of a request needs."""

    asked: Asked
    mixture: Mixture
    setup: Setup
    key: ClientKey
    record: Record
    headers: Headers
    connection: ClientConnection


class TurnEndpoint:
    """The endpoint of a wire, an ASGI application. Raises ApiError for a request that it
    refuses."""

    def __init__(self, service: Service, wire: Wire) -> None:
        self._service = service
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, key = self._service, key_of(scope)
        headers = Headers(scope=scope)
        check_kind(headers)
        # Before the body, so that the body of a refused request is not read.
        service.limiter.check()
        service.key_limiter.check(key)
        loops.travelled(headers.get(loops.HEADER, ""), service.address.id)
        body = await read_all(headers, receive, service.options.max_body)
        check_number(body, service.options.max_messages)
        asked, parsed = self._wire.read(body, strict=service.options.strict)
        await service.look_for(asked.model)
        with service.request() as setup:
            conversation = await service.files.read(asked.conversation)
            usage = asked.mixture.usage or service.options.usage or asked.usage
            if conversation is not asked.conversation or usage != asked.usage:
                asked = replace(asked, conversation=conversation, usage=usage)
            mixture = await setup.mixtures.for_request(asked, key)
            service.note_ignored(asked.ignored)
            connection = scope[CONNECTION]
            made = _Made(asked, mixture, setup, key, scope["moa.record"], headers, connection)
            with service.key_limiter.turn(key):
                await self._answer(made, parsed, send)

    async def _answer(self, made: _Made, parsed: Any, send: Send) -> None:
        service, record, asked = self._service, made.record, made.asked
        record.model, record.stream = asked.model, asked.stream
        show = asked.mixture.show_proposals
        encoder = self._wire.encoder(
            asked,
            parsed,
            fingerprint=made.mixture.fingerprint,
            show_proposals=service.options.show_proposals if show is None else show,
        )
        reply = (StreamedReply if asked.stream else Reply)(send, encoder)
        try:
            await self._until_done(made, reply)
        except ApiError as error:
            if not reply.begun:
                raise
            record.code = error.code
            await reply.fail(error)

    async def _until_done(self, made: _Made, reply: Reply) -> None:
        """Run the turn. It is cancelled if the client leaves or the server stops. If the server
        stops, the request continues, to report the end of the turn.
        """
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave() -> None:
            nonlocal left
            left = True
            task.cancel()

        self._service.running.add(task)
        try:
            with made.connection.calling(leave):
                reply.attend(leave)
                await self._turn(made, reply)
        except asyncio.CancelledError:
            if not (left or self._service.cut):
                raise
            while task.uncancel():
                pass
            if self._service.cut:
                raise stopping() from None
            made.record.status = 499
        finally:
            self._service.running.discard(task)
            reply.rest()

    async def _turn(self, made: _Made, reply: Reply) -> None:
        async with self._service.limiter.turn():
            first = await self._run(made, reply.take)
            turns = [first]
            if made.asked.choices > 1:
                turns += await self._more(made, reply, first)
            await reply.end(turns)

    async def _more(self, made: _Made, reply: Reply, first: Turn) -> list[Turn]:
        """The turns of the other choices. They are written in parallel, from the proposals and
        reviews of the first choice. If the reply is a copy of a proposal, all choices are the same,
        and cost nothing."""
        if first.decision is not None and first.reply and not first.reply_usage.calls:
            alike = replace(first, reviews=(), usage=Usage(), ledger=(), lost=())
            for choice in range(1, made.asked.choices):
                await reply.take(AggregatorDelta(text=first.reply), choice=choice)
            return [alike] * (made.asked.choices - 1)
        # The first choice was written without the unfinished answers of lost proposers.
        layers = [
            [proposal for proposal in layer if proposal.error is None] for layer in first.proposals
        ]
        kept = mergeable(layers) or None
        profile = replace(made.mixture.profile, report=False)
        made = replace(made, mixture=replace(made.mixture, profile=profile))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._run(made, partial(reply.take, choice=choice), kept, first.reviews)
                    )
                    for choice in range(1, made.asked.choices)
                ]
        except* ApiError as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _run(
        self,
        made: _Made,
        forward: Callable[[Event], Awaitable[None]],
        references: Sequence[Proposal] | None = None,
        reviews: Sequence[Proposal] = (),
    ) -> Turn:
        """One turn; raises ApiError if it gives no reply."""
        service, record, asked = self._service, made.record, made.asked
        fold = TurnFold()
        # Started before the calls, because they pass the trace on.
        trace = () if service.tracing is None else (self._trace(service.tracing, made),)
        events = run_turn(
            made.mixture.profile,
            asked.conversation,
            made.setup.clients,
            limits=made.setup.limits(made.key, reply_held=not asked.stream),
            references=references,
            response_format=asked.schema,
            reviews=reviews,
            reviewed=references is not None,
        )
        sinks = [service.metrics.turn(), *trace]
        try:
            await deliver(events, *sinks, fold=fold, forward=forward)
        finally:
            # Also after an error: calls in flight when the client left are billed, too.
            turn = fold.turn()
            record.usage = (record.usage or Usage()) + turn.usage
            ending = _ending_without_words(turn, asked) if turn.status == "failed" else None
            if ending is not None:
                turn = replace(turn, status="finished", reply="", finish_reason=ending)
            service.metrics.ended(asked.model, turn, made.key.name)
        if turn.status == "finished" or refusal_of(turn) is not None:
            return turn
        raise from_turn(turn, _seconds_to_wait(turn, made))

    def _trace(self, tracing: Tracing, made: _Made) -> TurnTrace:
        return tracing.turn(
            made.setup.clients.providers,
            made.headers,
            served=True,
            model=made.asked.model,
            request=made.record.id,
            key=made.key.name,
        )


def _ending_without_words(turn: Turn, asked: Asked) -> str | None:
    """The finish reason of a failed turn whose only fault is that the model wrote no words, such as
    one that has used all its tokens for thinking; None for any other failure.

    Other servers answer such a request with an empty text. The fault counts if it is the
    aggregator's, or, where the limit of the request applies to the proposers too, all of theirs. A
    reply that has to be JSON cannot be empty.
    """
    causes = () if asked.tiny_limit is None else turn.causes
    if turn.model is not None:
        causes = turn.causes[-1:]
    endings = {WORDLESS.get(cause.message) for cause in causes}
    return endings.pop() if len(endings) == 1 and asked.schema is None else None


def _seconds_to_wait(turn: Turn, made: _Made) -> float:
    """Seconds until one of the models that a failed turn needs may be asked again; 0 if no provider
    asked to wait."""
    slots = made.setup.reading.limits.slots
    if slots is None:
        return 0.0
    models = made.mixture.profile.models() if turn.model is None else (turn.model,)
    return min(filter(None, map(slots.asked_delay, models)), default=0.0)


def check_kind(headers: Headers) -> None:
    """Raise ApiError if the headers do not say that the body is plain JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # This is also a protection: a web page can send other content types to any server without a
    # preflight request.
    if kind != "application/json":
        raise _unsupported("the body must be JSON; send `Content-Type: application/json`")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("a compressed body is not supported", param="content-encoding")


def check_number(body: bytes, most: int) -> None:
    """Raise ApiError if there are too many messages, before they are parsed.

    Each message has a role, or is a tool call or its result. Text that mentions these keys is not
    counted, because its quotes are escaped.
    """
    number = max(body.count(key) for key in (b'"role"', b'"call_id"'))
    if number > most:
        raise ApiError(
            400,
            f"about {number:,} messages; this server accepts {most:,} (--max-messages)",
            param="messages",
            code="too_many_messages",
        )


async def read_all(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body. Raises ApiError if it is too large or too slow."""
    length = headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise _too_large(limit)
    parts, size = [], 0
    try:
        with Watch(_BODY_SECONDS) as watch:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(499, "the client left")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                watch.since += len(parts[-1]) / _SLOWEST_LINE
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        why = f"the body did not arrive in time: {size:,} bytes came"
        raise ApiError(408, why, code="request_timeout", headers=_CLOSE) from None


def _unsupported(message: str, param: str | None = None) -> ApiError:
    return ApiError(415, message, param=param, code="unsupported_media_type")


def _too_large(limit: int) -> ApiError:
    why = f"the body is larger than {limit:,} bytes (--max-body)"
    return ApiError(413, why, code="request_too_large", headers=_CLOSE)
