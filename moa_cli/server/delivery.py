"""How a turn's reply reaches the client: as it is written, or whole."""

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

# Until then, a failure still gets its own status. Afterwards the head must be sent, or a proxy or a
# client may time out.
_HEAD_SECONDS = 1.0
_SILENCE_SECONDS = 5.0
# One comment tells of all proposals that end within so long.
_COMMENT_SECONDS = 0.1
# A client that takes nothing for so long counts as gone.
_STALL_SECONDS = 60.0
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies (nginx) hold a stream back without it.
    (b"x-accel-buffering", b"no"),
]


class Reply:
    """The delivery of a reply: this one sends it once it is whole."""

    def __init__(self, send: Send, encoder: Encoder) -> None:
        self._send = send
        self._encoder = encoder
        # Whether the head of the response was sent.
        self.begun = False

    async def take(self, event: Event, choice: int = 0) -> None:
        """Take the next event of a turn. choice: the number of the reply that it writes."""

    async def end(self, turns: Sequence[Turn]) -> None:
        """The turns of the reply have finished: send what is left."""
        body = compact(self._encoder.whole(turns)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: ApiError) -> None:
        """The reply cannot be completed, though it was begun."""

    def attend(self, leave: Callable[[], None]) -> None:
        """From now on, do what is due while the turn runs. leave: called once the client counts as
        gone."""

    def rest(self) -> None:
        """The turn has ended: nothing more is due."""


class StreamedReply(Reply):
    """A reply that is sent as it is written, with comments for as long as there is none."""

    def __init__(self, send: Send, encoder: Encoder) -> None:
        super().__init__(send, encoder)
        self._progress = _ProgressText()
        self._lock = asyncio.Lock()
        self._wrote = time.monotonic()
        # Whether the end was sent: nothing may follow it.
        self._ended = False
        self._comment_due: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None
        self._leave: Callable[[], None] = lambda: None
        self._next_look: asyncio.TimerHandle | None = None

    async def take(self, event: Event, choice: int = 0) -> None:
        data = self._encoder.take(event, choice)
        news = self._progress.take(event)
        # With the first proposal the response begins: from now on failures are rare.
        if news and (self.begun or isinstance(event, events.ProposerFinished)):
            self._tell_soon()
        if data:
            await self._write(data)

    def _tell_soon(self) -> None:
        """Tell the progress with the next thing that is sent, or in a separate comment."""
        if self._comment_due is None:
            loop = asyncio.get_running_loop()
            self._comment_due = loop.call_later(_COMMENT_SECONDS, self._send_comment)

    def _comment(self, *, alone: bool = False) -> bytes:
        """What is to be told of the progress, if anything is. alone: whether nothing follows it;
        else what follows is a sign of life, and a comment needs no event of the wire."""
        if self._comment_due is None:
            return b""
        self._comment_due.cancel()
        self._comment_due = None
        text = self._progress.text
        return self._encoder.comment(text) if alone else comment(text)

    async def end(self, turns: Sequence[Turn]) -> None:
        await self._write(self._encoder.end(turns), more=False)

    async def fail(self, error: ApiError) -> None:
        """End the stream with the error, and without the mark of a good end."""
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
        """Send comments: on the progress, and when nothing was sent for long. leave: called if the
        client takes nothing for long."""
        self._leave = leave
        self._look()

    def rest(self) -> None:
        for due in (self._next_look, self._commenting):
            if due is not None:
                due.cancel()
        self._comment()

    def _look(self) -> None:
        """Make sure that the client hears something, and still listens. It is a timer and no task,
        since most replies are sent before it fires."""
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
        # While something is sent, what comes next tells it.
        if not self._lock.locked():
            self._commenting = asyncio.create_task(self._write(b""))


class _ProgressText:
    """How far a turn is, in words that hold nothing of what a model said."""

    def __init__(self) -> None:
        self._replying = False
        self._layer = self._asked = 0
        # Of each layer, which may begin again with more proposers.
        self._answered: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._name = ""

    def take(self, event: Event) -> bool:
        """Take the next event; whether there is news."""
        match event:
            case events.LayerStarted():
                self._layer, self._asked = event.layer, len(event.proposers)
                self._name = layer_name(event.layer, event.purpose)
            # A straggler of the layer before was told as one that may still come.
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
