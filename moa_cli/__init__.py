"""Mixture-of-Agents: several language models answer, one writes the reply.

As a library: `ask` (one call, returns the turn), `run_turn` (the events), `load_profile`,
and the values they speak in. Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moa_cli.version import __version__

if TYPE_CHECKING:
    from moa_cli.api import ask, ask_async, load_profile, open_clients, run_turn
    from moa_cli.core.conversation import Conversation, Failure, Message, Proposal, Turn, Usage
    from moa_cli.core.errors import MoAError, ProfileError
    from moa_cli.core.events import (
        AggregatorDelta,
        AggregatorFailed,
        AggregatorFinished,
        AggregatorStarted,
        Event,
        LayerFinished,
        LayerStarted,
        ProposerDelta,
        ProposerFailed,
        ProposerFinished,
        ProposerStarted,
        Retrying,
        TurnFailed,
        TurnFinished,
        TurnStarted,
    )
    from moa_cli.engine import Control, Limits
    from moa_cli.profile import Aggregator, Profile, Proposer

__all__ = [
    "Aggregator",
    "AggregatorDelta",
    "AggregatorFailed",
    "AggregatorFinished",
    "AggregatorStarted",
    "Control",
    "Conversation",
    "Event",
    "Failure",
    "LayerFinished",
    "LayerStarted",
    "Limits",
    "Message",
    "MoAError",
    "Profile",
    "ProfileError",
    "Proposal",
    "Proposer",
    "ProposerDelta",
    "ProposerFailed",
    "ProposerFinished",
    "ProposerStarted",
    "Retrying",
    "Turn",
    "TurnFailed",
    "TurnFinished",
    "TurnStarted",
    "Usage",
    "__version__",
    "ask",
    "ask_async",
    "load_profile",
    "open_clients",
    "run_turn",
]

# Searched in this order for a name that is asked for; each imports only what it needs.
# The first that has a name gives it: `run_turn` is the one that knows the settings.
_ROOMS = ("core.conversation", "profile", "core.events", "core.errors", "api", "engine")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            module = importlib.import_module(f"moa_cli.{room}")
            if name in getattr(module, "__all__", ()):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
