"""The arguments of the tools: their schemas, and their check in a client's call.

The SDK does not check arguments, so they are checked here. Errors are sentences that the calling
model can act on.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp.types import Tool, ToolAnnotations

from moa_cli.core.errors import UsageError
from moa_cli.server.reading import DEFAULT

# Most profiles in one call, because each one is a whole mixture that costs money.
_MOST_PROFILES = 8
_READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=False, open_world_hint=True)

_ASK = (
    "Ask a mixture of language models: several models answer independently, and one writes the"
    " reply from their answers. Use it for a second opinion, a hard decision, a review or a plan."
    " It cannot see this conversation or any file, so put everything it needs into the prompt."
    " A call takes from seconds to minutes and costs money."
)
_COMPARE = (
    "See independent answers to one prompt side by side, without a reply written from them. With"
    " no profile or one, these are the answers of its proposers; with several, the reply of each"
    " profile. Use it to see where models agree and where they do not. It cannot see this"
    " conversation or any file, so put everything it needs into the prompt. It costs money."
)
_PROMPT = {"type": "string", "minLength": 1, "description": "The question, with all its context."}
_SYSTEM = {"type": "string", "description": "A system prompt for all models of the mixture."}
_LEDGER = {
    "type": "object",
    "description": "What the mixture did: calls, tokens and cost by layer, models that were lost.",
}


@dataclass(frozen=True)
class ToolRequest:
    """The arguments of a call. profiles: the names of the profiles that answer, at least one."""

    prompt: str
    system: str
    profiles: tuple[str, ...]


def tools(profiles: Mapping[str, str]) -> list[Tool]:
    """The tools. profiles: a line about each profile that can be asked, by name."""
    lines = "; ".join(f"`{name}`: {about}" for name, about in profiles.items())
    profile = {"type": "string", "enum": list(profiles)}
    one = {**profile, "default": DEFAULT, "description": f"Which mixture answers. {lines}"}
    several = {
        "type": "array",
        "items": profile,
        "minItems": 1,
        "maxItems": _MOST_PROFILES,
        "uniqueItems": True,
        "default": [DEFAULT],
        "description": f"Which mixtures answer. {lines}",
    }
    answer = _object(
        name={"type": "string"},
        text={"type": ["string", "null"]},
        error={"type": ["string", "null"]},
    )
    compared = _object(
        answers={"type": "array", "items": answer},
        cost={"type": ["number", "null"], "description": "USD; null where a price is unknown."},
        moa={"type": "array", "items": _LEDGER},
    )
    replied = _object(reply={"type": "string"}, moa=_LEDGER)
    return [
        _tool("ask", "Ask a mixture of models", _ASK, replied, profile=one),
        _tool("compare", "Compare independent answers", _COMPARE, compared, profiles=several),
    ]


def _tool(name: str, title: str, description: str, output: dict[str, Any], **asked: Any) -> Tool:
    """A tool. asked: the argument that names the profiles."""
    taken = _object(prompt=_PROMPT, **asked, system=_SYSTEM)
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema={**taken, "required": ["prompt"], "additionalProperties": False},
        output_schema=output,
        annotations=_READ_ONLY,
    )


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def read_arguments(tool: str, given: Mapping[str, Any], known: Sequence[str]) -> ToolRequest:
    """The request of a call. known: the profiles that can be asked. Raises UsageError."""
    key = {"ask": "profile", "compare": "profiles"}.get(tool)
    if key is None:
        raise UsageError(f"there is no tool {tool!r}; there are `ask` and `compare`")
    for name in given:
        if name not in ("prompt", key, "system"):
            raise UsageError(f"{tool} takes no {name!r}, only `prompt`, `{key}` and `system`")
    prompt, system = given.get("prompt"), given.get("system")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("prompt: must be a text that is not empty")
    if not isinstance(system, str | None):
        raise UsageError("system: must be a text")
    named = given.get(key)
    if named is None:
        named = [DEFAULT]
    elif tool == "ask":
        named = [named]
    if not isinstance(named, list) or not named or not all(isinstance(x, str) for x in named):
        raise UsageError(f"{key}: must be {'a name' if tool == 'ask' else 'a list of names'}")
    if len(named) > _MOST_PROFILES:
        raise UsageError(f"{key}: at most {_MOST_PROFILES} can be compared")
    for name in named:
        if name not in known:
            raise UsageError(f"{key}: {_unknown(name, known)}")
    return ToolRequest(prompt, system or "", tuple(dict.fromkeys(named)))


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    shown = name if len(name) <= 64 else name[:63] + "…"
    return f"there is no profile {shown!r}; {meant}there are {', '.join(known)}"
