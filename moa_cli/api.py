"""The mixture as a library: one call, or a stream of events.

from moa_cli import ask, load_profile

turn = ask("Give me three facts about the Moon", profile=load_profile("local"))
print(turn.reply)
"""

from __future__ import annotations

import asyncio
import os

from moa_cli.clients.base import Clients
from moa_cli.clients.pool import ClientPool
from moa_cli.config import Config, load_config
from moa_cli.conversation import Conversation, Turn
from moa_cli.defaults import default_profile
from moa_cli.engine import Limits
from moa_cli.engine import run_turn as _run_turn
from moa_cli.profile import Profile, load, resolve
from moa_cli.stream import Sink, deliver

__all__ = ["ask", "ask_async", "load_profile", "open_clients", "run_turn"]

load_profile = load
run_turn = _run_turn


def open_clients() -> ClientPool:
    """Clients for `run_turn`, made from the config file and the environment's keys.

    They belong to one event loop; `await clients.aclose()` there when done.
    """
    return ClientPool(load_config())


def ask(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
) -> Turn:
    """Ask once and return the turn; see `ask_async`. Not for use inside an event loop.

    Raises RuntimeError if an event loop is running.
    """
    return asyncio.run(ask_async(prompt, profile=profile, conversation=conversation, sinks=sinks))


async def ask_async(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
    clients: Clients | None = None,
) -> Turn:
    """Answer `prompt` by a mixture and return the turn.

    profile: a profile, or the name or path of one; without it the one that `moa ask` would
    use, MOA_* variables included. conversation: what was said before.
    sinks: shown each event as it comes. clients: used and left open; by default the ones of
    the config file, for this call.

    A turn whose models failed is returned, not raised: look at `turn.status` and `turn.error`.
    Raises ProfileError if there is no such profile, or it is wrong, or one of its model names
    has a provider that is not known; nothing is sent then.
    """
    if clients is None:
        pool = open_clients()
        try:
            return await ask_async(
                prompt, profile=profile, conversation=conversation, sinks=sinks, clients=pool
            )
        finally:
            await pool.aclose()
    config = load_config()
    events = _run_turn(
        _resolved(profile, config),
        (conversation or Conversation()).ask(prompt),
        clients,
        limits=Limits(concurrency=config.concurrency, retries=config.retries),
    )
    return await deliver(events, *sinks)


def _resolved(profile: Profile | str | None, config: Config) -> Profile:
    if profile is None:
        return resolve(default_profile(config, os.environ), environment=os.environ)
    return load(profile) if isinstance(profile, str) else profile
