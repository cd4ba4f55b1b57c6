"""The servers on this machine that offer models: Ollama, LM Studio, llama.cpp, vLLM, and those of
the user's settings.

They are looked for before the first answer of somebody who has set nothing up, so this takes as
little as it can: plain HTTP of the standard library, and no client of an endpoint.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from moa_cli.core.endpoints import ModelInfo
from moa_cli.models.choosing import can_chat
from moa_cli.models.model_list import read_list
from moa_cli.models.providers import Providers, is_loopback
from moa_cli.models.table import Provider

# A closed port refuses at once, and a server lists its models in some milliseconds. This is for
# one that is busy; what listens there and never answers costs as much once.
_PATIENCE_SECONDS = 1.0
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class LocalServer:
    """A server that answers. models: those of its models that can chat."""

    provider: str
    models: tuple[ModelInfo, ...]


def find_local_servers(
    providers: Providers, *, patience: float = _PATIENCE_SECONDS
) -> list[LocalServer]:
    """The servers on this machine with at least one model that can chat.

    All known providers with an address on this machine that need no key are asked at once. What
    listens at such an address and is no model server is passed over. patience: seconds.
    """
    candidates = [
        provider
        for provider in providers.known.values()
        if provider.base_url and not provider.needs_key and is_loopback(provider.base_url)
    ]
    with ThreadPoolExecutor(len(candidates) or 1) as threads:
        lists = threads.map(lambda provider: _chat_models(provider, patience), candidates)
        return [
            LocalServer(provider.name, tuple(models))
            for provider, models in zip(candidates, lists, strict=True)
            if models
        ]


def _chat_models(provider: Provider, patience: float) -> Sequence[ModelInfo]:
    address = urlsplit(provider.base_url or "")
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(address.hostname or "", address.port, timeout=patience)) as connection:
            connection.connect()
            with _ended_after(patience, connection.sock):
                connection.request("GET", f"{address.path}/models")
                listed = json.loads(connection.getresponse().read(_MOST_BYTES))
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return []
    return [info for info in read_list(listed) or () if can_chat(info)]


@contextmanager
def _ended_after(seconds: float, connection: socket.socket) -> Iterator[None]:
    """End the connection then: its own timeout is for each read, and what sends a byte now and
    again would be waited for without end."""

    def end() -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
