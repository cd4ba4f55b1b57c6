"""Clients and limits for the one provider of a benchmark, as the commands make them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from moa_cli.clients.limiter import Limiter
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.engine import Limits


@asynccontextmanager
async def lab(
    url: str, *, concurrency: int = 32, **settings: Any
) -> AsyncIterator[tuple[ClientPool, Limits]]:
    """The clients of the provider `lab` at `url`, and limits for turns over them.

    What the limiter learns is kept in a folder of its own. settings: further ones of the provider.
    """
    provider = ProviderSettings(base_url=url, api_key_env="KEY", **settings)
    config = Config(providers={"lab": provider})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOA_CACHE_DIR"] = folder
        async with aclosing(ClientPool(config, {"KEY": "some-key-0123456789"})) as pool:
            slots = Limiter(concurrency).slots(pool.providers.provider_of)
            yield pool, Limits(concurrency=concurrency, slots=slots)
