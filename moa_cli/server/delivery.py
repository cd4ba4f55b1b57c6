"""Delivers a turn's reply to the client: as it is written, or as a whole."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from starlette.types import Send

from moa_cli.core import events
from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.core.strategy import layer_name
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.sse import comment, compact
from moa_cli.server.wires.wire import Encoder

# Seconds until the head of the response is sent. Before that, a failure can still have its own
# status; later a proxy or a client may time out without a head.
_HEAD_SECONDS = 1.0
_SILENCE_SECONDS = 5.0
# One comment reports all proposals that end within this many seconds.
_COMMENT_SECONDS = 0.1
# A client that receives nothing for this many seconds counts as gone.
_STALL_SECONDS = 60.0
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Without this header, proxies (nginx) buffer a stream.
    (b"x-accel-buffering", b"no"),
]


class Reply:
    """Delivers a reply as a whole, when it is complete."""

    def __init__(self, send: Send, encoder: Encoder) -> None:
        self._send = send
        self._encoder = encoder
        # Whether the head of the response has been sent.
        self.begun = False

    async def take(self, event: Event, choice: int = 0) -> None:
        """Handle the next event of a turn. choice: the number of the reply that the turn writes."""

    async def end(self, turns: Sequence[Turn]) -> None:
        """Send the rest of the reply, after its turns have finished."""
        body = compact(self._encoder.whole(turns)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: ApiError) -> None:
        """Report an error after the response has begun."""

    def attend(self, leave: Callable[[], None]) -> None:
        """Start the work that is due while the turn runs. leave: called once the client counts as
        gone."""

    def rest(self) -> None:
        """Stop that work, because the turn has ended."""


class StreamedReply(Reply):
    """Delivers a reply as it is written, and sends comments while no text comes."""

    def __init__(self, send: Send, encoder: Encoder) -> None:
        super().__init__(send, encoder)
        self._progress = _ProgressText()
        self._lock = asyncio.Lock()
        self._wrote = time.monotonic()
        # Whether the end has been sent, after which nothing may follow.
        self._ended = False
        self._comment_due: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None
        self._leave: Callable[[], None] = lambda: None
        self._next_look: asyncio.TimerHandle | None = None

    async def take(self, event: Event, choice: int = 0) -> None:
        data = self._encoder.take(event, choice)
        news = self._progress.take(event)
        # The response begins with the first proposal, because failures are rare after it.
        if news and (self.begun or isinstance(event, events.ProposerFinished)):
            self._tell_soon()
        if data:
            await self._write(data)

    def _tell_soon(self) -> None:
        """Report the progress with the next data that is sent, or in a separate comment."""
        if self._comment_due is None:
            loop = asyncio.get_running_loop()
            self._comment_due = loop.call_later(_COMMENT_SECONDS, self._send_comment)

    def _comment(self, *, alone: bool = False) -> bytes:
        """The comment about the progress, if one is due. alone: whether it is sent without other
        data. Then it has the wire's own form, which may include an event to keep the client
        waiting."""
        if self._comment_due is None:
            return b""
        self._comment_due.cancel()
        self._comment_due = None
        text = self._progress.text
        return self._encoder.comment(text) if alone else comment(text)

    async def end(self, turns: Sequence[Turn]) -> None:
        await self._write(self._encoder.end(turns), more=False)

    async def fail(self, error: ApiError) -> None:
        """End the stream with the error, and without the mark of a successful end."""
        await self._write(self._encoder.fail(error), more=False)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        async with self._lock:
            if self._ended:
                return
            self._ended = not more
            data = self._comment(alone=not data) + data
            self._wrote = time.monotonic()
            if not self.begun:
                self.begun = True
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
                )
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def attend(self, leave: Callable[[], None]) -> None:
        """Send comments about the progress, and when nothing was sent for a while. leave: called if
        the client receives nothing for too long."""
        self._leave = leave
        self._look()

    def rest(self) -> None:
        for due in (self._next_look, self._commenting):
            if due is not None:
                due.cancel()
        self._comment()

    def _look(self) -> None:
        """Send a comment after a silence, and check whether the client still receives data. This is
        a timer and not a task, because most replies are complete before it fires."""
        silent = time.monotonic() - self._wrote
        patience = _SILENCE_SECONDS if self.begun else _HEAD_SECONDS
        if self._lock.locked() and silent > _STALL_SECONDS:
            self._leave()
            return
        if silent >= patience:
            self._tell_soon()
            self._send_comment()
            silent = 0.0
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(max(patience - silent, 0.1), self._look)

    def _send_comment(self) -> None:
        # While other data is being sent, the next data will include the comment.
        if not self._lock.locked():
            self._commenting = asyncio.create_task(self._write(b""))


class _ProgressText:
    """The progress of a turn in words, without any text of a model."""

    def __init__(self) -> None:
        self._replying = False
        self._layer = self._asked = 0
        # Counts by layer, because a layer may begin again with more proposers.
        self._answered: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._name = ""

    def take(self, event: Event) -> bool:
        """Handle the next event; returns whether the progress has changed."""
        match event:
            case events.LayerStarted():
                self._layer, self._asked = event.layer, len(event.proposers)
                self._name = layer_name(event.layer, event.purpose)
            # A late proposer of an earlier layer is not counted in the current layer.
            case events.ProposerFinished() if event.layer == self._layer:
                self._answered[event.layer] += 1
            case events.ProposerFailed() if event.layer == self._layer:
                self._lost[event.layer] += 1
            case events.AggregatorStarted():
                self._replying = True
            case _:
                return False
        return True

    @property
    def text(self) -> str:
        parts = []
        if self._layer:
            answered, lost = self._answered[self._layer], self._lost[self._layer]
            told = f", {lost} lost" if lost else ""
            parts.append(f"{self._name}: {answered} of {self._asked} answered{told}")
        if self._replying:
            parts.append("the reply is being written")
        return "; ".join(parts) or "waiting"
