"""An endpoint that follows scripts: real HTTP on loopback, from a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tests.faults.script import HANG, RESET, Script, Step, Wait, whole
from tests.support.loopback import LoopbackServer

# A reset in place of a close in good order.
_LINGER = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Asked:
    """One request for a completion. accepted: the head of a good status was sent."""

    model: str
    messages: list[dict[str, Any]]
    headers: dict[str, str]
    body: dict[str, Any]
    accepted: bool = False
    over: bool = False


def _without_role(model: str) -> str:
    return model.partition("-sound")[0]


class Endpoint(LoopbackServer):
    """`with Endpoint(script_of) as endpoint:` serves `endpoint.url`.

    script_of: what is done with a request, given the model and how many there were before for it.
    The name of a sound model beside another is the other's, `-sound` and its
    role.
    """

    def __init__(self, script_of: Callable[[str, int], Script]) -> None:
        super().__init__()
        self.script_of = script_of
        self._asked: dict[str, list[Asked]] = {}
        self.bugs: list[Exception] = []

    def __enter__(self) -> Self:
        super().__enter__()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        super().__exit__(kind, *rest)
        if self.bugs and kind is None:
            raise AssertionError("the endpoint itself failed") from self.bugs[0]

    def of(self, model: str) -> list[Asked]:
        """The requests for that model."""
        return [asked for asked in self.around(model) if asked.model == model]

    def around(self, model: str) -> list[Asked]:
        """The requests for that model and for the sound models beside it."""
        return list(self._asked.get(_without_role(model), ()))

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer its requests."""
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, EOFError):
            pass
        except Exception as bug:
            self.bugs.append(bug)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the next request; whether the connection is kept."""
        first = await reader.readexactly(1)
        if not first.isalpha():
            # TLS, to which servers of plain HTTP answer so.
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return False
        raw = first + await reader.readuntil(b"\r\n\r\n")
        start, *lines = raw.decode("latin-1").strip().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        method, path, _ = start.split(" ")
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        asked: Asked | None = None
        if method == "GET" and path.endswith("/models"):
            steps = whole({"data": [{"id": "well"}]})
        elif method == "OPTIONS":
            steps = whole("", 204)
        else:
            body = json.loads(data) if data else {}
            model = str(body.get("model", path))
            asked = Asked(model, body.get("messages", []), headers, body)
            before = len(self.of(model))
            self._asked.setdefault(_without_role(model), []).append(asked)
            steps = self.script_of(model, before)
        script = asyncio.create_task(self._play(steps, asked, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({script, gone}, return_when=asyncio.FIRST_COMPLETED)
            return script.done() and not gone.done() and script.result()
        finally:
            script.cancel()
            gone.cancel()
            await asyncio.gather(script, gone, return_exceptions=True)
            if asked is not None:
                asked.over = True

    async def _play(self, steps: Script, asked: Asked | None, writer: asyncio.StreamWriter) -> bool:
        for step in steps:
            if not await self._step(step, asked, writer):
                return False
        return True

    async def _step(self, step: Step, asked: Asked | None, writer: asyncio.StreamWriter) -> bool:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, bytes):
            if asked is not None and step.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
                asked.accepted = True
            writer.write(step)
            await writer.drain()
        elif step is HANG:
            await asyncio.Event().wait()
        else:
            if step is RESET:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                writer.transport.abort()
            return False
        return True
