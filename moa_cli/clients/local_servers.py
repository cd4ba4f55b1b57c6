"""The servers on this machine that offer models: Ollama, LM Studio, llama.cpp, vLLM, and those of
the user's settings.

They are looked for before the first answer of somebody who has set nothing up, so this takes as
little as it can: plain HTTP of the standard library, and no client of an endpoint.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from moa_cli.core.endpoints import NO_KEY, ModelInfo
from moa_cli.core.errors import MoAError
from moa_cli.models.choosing import can_chat
from moa_cli.models.providers import Providers, is_loopback
from moa_cli.models.table import Provider

# A closed port refuses at once, and a server lists its models in some milliseconds. This is for
# one that is busy; what listens there and never answers costs as much once.
_PATIENCE_SECONDS = 1.0
_MOST_BYTES = 1 << 20


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
        lists = threads.map(
            lambda provider: _chat_models(providers, provider, patience), candidates
        )
        return [
            LocalServer(provider.name, tuple(models))
            for provider, models in zip(candidates, lists, strict=True)
            if models
        ]


def _chat_models(providers: Providers, provider: Provider, patience: float) -> Sequence[ModelInfo]:
    address = urlsplit(provider.base_url or "")
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    try:
        key = providers.key(provider)
        headers = {} if key == NO_KEY else {"Authorization": f"Bearer {key}"}
        with closing(kind(address.hostname or "", address.port, timeout=patience)) as connection:
            connection.request("GET", f"{address.path}/models", headers=headers)
            listed = json.loads(connection.getresponse().read(_MOST_BYTES))
    except (OSError, ValueError, http.client.HTTPException, MoAError):
        return []
    rows = listed.get("data") if isinstance(listed, dict) else listed
    names = (
        [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    )
    return [ModelInfo(id=name) for name in names if isinstance(name, str) and can_chat(name)]
