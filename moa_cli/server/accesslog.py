"""Writes a line to standard error for each request, without any text of the conversation and
without keys."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO
from urllib.parse import quote

from moa_cli.core.conversation import Usage
from moa_cli.core.money import cost_text, cost_value
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps, plural

LogFormat = Literal["text", "json"]
_LONGEST_PATH = 200


@dataclass
class Record:
    """The facts about a request that the log shows.

    `began` is the time of arrival on the monotonic clock. `status` is 499 if the client left before
    the end. `model` is the name that the client sent, if there is such a model. `code` is the code
    of the error that ended the request. `key` is the name of the client's key, if it has one.
    """

    id: str
    method: str
    path: str
    client: str
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str | None = None
    stream: bool = False
    usage: Usage | None = None
    code: str | None = None
    key: str | None = None


class AccessLog:
    """Writes a line for each request, as text or as JSON."""

    def __init__(self, form: LogFormat, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._form = form

    def request(self, record: Record) -> None:
        seconds = time.monotonic() - record.began
        self._put((_as_json if self._form == "json" else _as_text)(record, seconds))

    def note(self, text: str, request_id: str | None = None) -> None:
        """Write another line for the operator of the server."""
        if self._form == "json":
            self._put(dumps({"time": _now(), "id": request_id, "message": text}))
        else:
            self._put(one_line(f"moa: {text}" + (f" [{request_id}]" if request_id else "")))

    def _put(self, line: str) -> None:
        # The reader of the log may be gone, which must not stop the server.
        with contextlib.suppress(OSError, ValueError):
            self._out.write(line + "\n")
            self._out.flush()


def place_of(bug: Exception) -> str:
    """The place of a bug, without the exception's message, which may hold text of a client."""
    frames = traceback.extract_tb(bug.__traceback__)[-4:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(bug).__name__} at {places}"


def _now() -> str:
    now = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{whole}.{int(now % 1 * 1000):03d}Z"


def _as_text(record: Record, seconds: float) -> str:
    # Quoted, so that a client cannot write further fields into the line.
    path = quote(record.path[:_LONGEST_PATH], safe="/:@!$&'()*+,;=~", errors="replace")
    parts = [_now(), record.id, record.client, record.method, path]
    parts += [str(record.status), f"{seconds:.3f}s"]
    parts += [f"key={record.key}" if record.key else ""]
    parts += [record.model or "", "stream" if record.stream else ""]
    if record.usage is not None:
        used = record.usage
        parts.append(plural(used.calls, "call"))
        parts.append(f"{used.prompt_tokens}+{used.completion_tokens} tokens")
        parts.append(cost_text(used))
    return one_line(" ".join([*parts, record.code or ""]))


def _as_json(record: Record, seconds: float) -> str:
    used = record.usage or Usage()
    return dumps(
        {
            "time": _now(),
            "id": record.id,
            "client": record.client,
            "method": record.method,
            "path": record.path[:_LONGEST_PATH],
            "status": record.status,
            "seconds": round(seconds, 4),
            "model": record.model,
            "stream": record.stream,
            "calls": used.calls,
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "cost": cost_value(used),
            "code": record.code,
            **({"key": record.key} if record.key else {}),
        }
    )
