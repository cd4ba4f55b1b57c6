"""A model endpoint that costs as little as can be: canned answers of 20 tokens, one write each.

`python -m benchmarks.fast_upstream` prints its URL and serves until it is killed; with `--delay`
each completion takes so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json

__all__ = ["TOKENS", "WORDS"]

TOKENS = 20
WORDS = [f"tok{number} " for number in range(TOKENS)]
_USAGE = {"prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS}


def _chunk(delta: dict[str, str], reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**chunk, "choices": [choice], **more}).encode() + b"\n\n"


def _response(kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _streamed() -> bytes:
    frames = [_chunk({"content": word}) for word in WORDS]
    frames += [_chunk({}, "stop", usage=_USAGE), b"data: [DONE]\n\n"]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in frames) + b"0\r\n\r\n"


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(WORDS)}
    choices = [
        {"index": number, "message": message, "finish_reason": "stop"} for number in range(3)
    ]
    table = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    body = json.dumps({**table, "choices": choices, "usage": _USAGE}).encode()
    return _response("application/json", body)


_STREAMED, _WHOLE = _streamed(), _whole()
_MODELS = _response("application/json", b'{"object":"list","data":[]}')


class _Connection(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].lower()
            length = 0
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            stop = end + 4 + length
            if len(self._pending) < stop:
                return
            body, self._pending = self._pending[end + 4 : stop], self._pending[stop:]
            answer = _answer(head, body)
            if self._delay and answer is not _MODELS:
                loop = asyncio.get_running_loop()
                loop.call_later(self._delay, self._transport.write, answer)
            else:
                self._transport.write(answer)


def _answer(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"get"):
        return _MODELS
    return _STREAMED if b'"stream": true' in body or b'"stream":true' in body else _WHOLE


async def _serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(delay), "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds a completion takes")
    asyncio.run(_serve(parser.parse_args().delay))
