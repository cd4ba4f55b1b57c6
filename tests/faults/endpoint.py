"""An endpoint that follows scripts: real HTTP on loopback, from a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from tests.faults.script import HANG, RESET, Script, Step, Wait, whole

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


class Endpoint:
    """`with Endpoint(script_of) as endpoint:` serves `endpoint.url`.

    script_of: what is done with a request, given the model and how many there were before for it.
    open: connections. The name of a sound model beside another is the other's, `-sound` and its
    role.
    """

    def __init__(self, script_of: Callable[[str, int], Script]) -> None:
        self.script_of = script_of
        self._asked: dict[str, list[Asked]] = {}
        self.open = 0
        self.bugs: list[Exception] = []

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="faults")
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.bugs and kind is None:
            raise AssertionError("the endpoint itself failed") from self.bugs[0]

    def of(self, model: str) -> list[Asked]:
        """The requests for that model."""
        return [asked for asked in self.around(model) if asked.model == model]

    def around(self, model: str) -> list[Asked]:
        """The requests for that model and for the sound models beside it."""
        return list(self._asked.get(_without_role(model), ()))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer))
            connections[task] = writer
            task.add_done_callback(connections.pop)

        server = await asyncio.start_server(accept, sock=self._socket)
        self._ready.set()
        await self._stop.wait()
        server.close()
        # Connections that are accepted in this moment are there after the next steps of the loop,
        # and are ended after one more.
        for _ in range(3):
            await asyncio.sleep(0)
        for task, writer in connections.items():
            # One that has not begun yet closes nothing by itself when it is cancelled.
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        # asyncio does this only for sockets that it made itself.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, EOFError):
            pass
        except Exception as bug:
            self.bugs.append(bug)
        finally:
            self.open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

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
