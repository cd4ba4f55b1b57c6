"""Mixture-of-Agents: several language models answer, one writes the reply.

As a library: `ask` (one call, returns the turn), `ask_async` (the same for code that runs in an
event loop), `run_turn` (the events), `load_profile`, and the values that they take and return.
Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moa_cli.version import __version__

if TYPE_CHECKING:
    from moa_cli.api import ask, ask_async, load_profile, open_clients, run_report, run_turn
    from moa_cli.core.conversation import (
        Charge,
        Citation,
        Conversation,
        Failure,
        Message,
        Part,
        Proposal,
        Turn,
        Usage,
    )
    from moa_cli.core.endpoints import Client, Clients, Delta, Endpoint, ModelInfo, Request
    from moa_cli.core.errors import (
        AnswerRefused,
        AuthenticationFailed,
        BadResponse,
        ClientError,
        ClientTimeout,
        ConnectionLost,
        ContentFiltered,
        ContextTooLong,
        ImagesNotSeen,
        LocalModelUnavailable,
        MoAError,
        ModelNotFound,
        NoCredit,
        ProfileError,
        RateLimited,
        RequestRefused,
        SchemaMismatch,
        ServerFailed,
        StoreError,
        ToolsUnsupported,
        UsageError,
    )
    from moa_cli.core.events import (
        AggregatorDelta,
        AggregatorFailed,
        AggregatorFinished,
        AggregatorStarted,
        Caller,
        Decided,
        Event,
        Hedged,
        HistoryTrimmed,
        LayerFinished,
        LayerStarted,
        LeftOutTurns,
        ProposerDelta,
        ProposerFailed,
        ProposerFinished,
        ProposerStarted,
        Queued,
        ReferencesTrimmed,
        Reported,
        Retrying,
        TurnFailed,
        TurnFinished,
        TurnStarted,
        from_dict,
        to_dict,
    )
    from moa_cli.core.money import Price
    from moa_cli.core.strategy import Decision, Placing, Point, Report
    from moa_cli.core.stream import Sink, deliver
    from moa_cli.core.tools import ToolCall
    from moa_cli.engine import Control, FanOutMemory, Limits, ResponseFormat
    from moa_cli.profile import Aggregator, Layer, Profile, Proposer, RouteStage, Stage

__all__ = [
    "Aggregator",
    "AggregatorDelta",
    "AggregatorFailed",
    "AggregatorFinished",
    "AggregatorStarted",
    "AnswerRefused",
    "AuthenticationFailed",
    "BadResponse",
    "Caller",
    "Charge",
    "Citation",
    "Client",
    "ClientError",
    "ClientTimeout",
    "Clients",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "Control",
    "Conversation",
    "Decided",
    "Decision",
    "Delta",
    "Endpoint",
    "Event",
    "Failure",
    "FanOutMemory",
    "Hedged",
    "HistoryTrimmed",
    "ImagesNotSeen",
    "Layer",
    "LayerFinished",
    "LayerStarted",
    "LeftOutTurns",
    "Limits",
    "LocalModelUnavailable",
    "Message",
    "MoAError",
    "ModelInfo",
    "ModelNotFound",
    "NoCredit",
    "Part",
    "Placing",
    "Point",
    "Price",
    "Profile",
    "ProfileError",
    "Proposal",
    "Proposer",
    "ProposerDelta",
    "ProposerFailed",
    "ProposerFinished",
    "ProposerStarted",
    "Queued",
    "RateLimited",
    "ReferencesTrimmed",
    "Report",
    "Reported",
    "Request",
    "RequestRefused",
    "ResponseFormat",
    "Retrying",
    "RouteStage",
    "SchemaMismatch",
    "ServerFailed",
    "Sink",
    "Stage",
    "StoreError",
    "ToolCall",
    "ToolsUnsupported",
    "Turn",
    "TurnFailed",
    "TurnFinished",
    "TurnStarted",
    "Usage",
    "UsageError",
    "__version__",
    "ask",
    "ask_async",
    "deliver",
    "from_dict",
    "load_profile",
    "open_clients",
    "run_report",
    "run_turn",
    "to_dict",
]

# Where the public names are: in `api`, or in one of `_HOMES`, light modules first. To find a name,
# modules are imported in this order until one has it.
_OF_THE_API = ("ask", "ask_async", "load_profile", "open_clients", "run_report", "run_turn")
_CORE = ("conversation", "errors", "events", "endpoints", "money", "strategy", "stream", "tools")
_HOMES = (*(f"core.{module}" for module in _CORE), "profile", "engine")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in ("api",) if name in _OF_THE_API else _HOMES:
            module = importlib.import_module(f"moa_cli.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
