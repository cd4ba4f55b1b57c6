"""The servers on this machine that offer models: Ollama, LM Studio, llama.cpp, vLLM, and those of
the user's settings.

The search runs before the first answer of a user who has set nothing up, so it must be fast. It
uses only the plain HTTP of the standard library and loads no endpoint client.
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

# Seconds for one server. A closed port refuses at once, and a server lists its models within
# milliseconds. The limit is for a busy server, and for a program that listens but never answers.
_PATIENCE_SECONDS = 1.0
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class LocalServer:
    """A server that answers. models: the models on it that can chat."""

    provider: str
    models: tuple[ModelInfo, ...]


def find_local_servers(
    providers: Providers, *, patience: float = _PATIENCE_SECONDS
) -> list[LocalServer]:
    """The servers on this machine with at least one model that can chat.

    All known providers with an address on this machine that need no key are asked in parallel. A
    program at such an address that is not a model server is ignored. patience: seconds.
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
    """Shut the connection down after this time. The timeout of a socket applies to each read, so a
    server that sends a byte now and then would never reach it."""

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
