"""The fields of a request body: what each may hold, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moa_cli.config.tables import Key, check_table, nearest
from moa_cli.core.errors import ProfileError
from moa_cli.profile.schema import PROFILE_KEYS, PROPOSER_KEYS
from moa_cli.server.errors import ApiError

__all__ = [
    "HARMLESS",
    "KNOWN",
    "MESSAGE_HARMLESS",
    "MIXTURE",
    "NO_EFFECT",
    "PLAIN",
    "STREAM_OPTIONS",
    "check",
    "refuse_unknown",
]

_INT64 = 2.0**63
# Fields that are one plain value.
PLAIN: dict[str, Key] = {
    "model": Key("text", "a profile's name; `moa` is the server's default profile"),
    "stream": Key("flag", "send the reply as it is written"),
    "temperature": Key("number", "of the reply", 0, 2),
    "top_p": Key("number", "of the reply", 0, 1),
    "max_tokens": Key("whole", "most tokens of the reply", 1, 2**31 - 1),
    "max_completion_tokens": Key("whole", "the same as max_tokens", 1, 2**31 - 1),
    "presence_penalty": Key("number", "of the reply", -2, 2),
    "frequency_penalty": Key("number", "of the reply", -2, 2),
    "reasoning_effort": Key(
        "text",
        "of the reply",
        choices=("none", "minimal", "low", "medium", "high", "xhigh"),
    ),
    "seed": Key("whole", "for all models without a seed of their own", -_INT64, _INT64),
    "user": Key("text", "passed on to all models"),
}
STREAM_OPTIONS: dict[str, Key] = {
    "include_usage": Key("flag", "end the stream with a chunk that holds the usage"),
    "include_obfuscation": Key("flag", "must be false if given"),
}
# The `moa` object: overrides for this request.
MIXTURE: dict[str, Key] = {
    "rounds": PROFILE_KEYS["rounds"],
    "proposers": Key("texts", "models in place of the profile's proposers"),
    "aggregator": Key("text", "the model that writes the reply"),
    "samples": PROPOSER_KEYS["samples"],
    "reference_placement": PROFILE_KEYS["reference_placement"],
    "show_proposals": Key("flag", "give the proposals as `reasoning_content`"),
}
# Bookkeeping that client libraries send. It changes nothing in a reply, so nothing is lost.
NO_EFFECT: dict[str, Key] = {
    "metadata": Key("table", "no effect"),
    "parallel_tool_calls": Key("flag", "no effect: there are no tools"),
    "prompt_cache_key": Key("text", "no effect"),
    "prompt_cache_retention": Key("text", "no effect"),
    "safety_identifier": Key("text", "no effect"),
}
# What is not supported, with the values that ask for nothing.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# The same within a message: client libraries send back a reply with all its empty fields.
MESSAGE_HARMLESS: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_calls": ([],),
}
KNOWN = (*PLAIN, "messages", "stop", "stream_options", "moa", *NO_EFFECT, *HARMLESS)


def check(name: str, value: Any, key: Key, prefix: str = "") -> None:
    """Raise ApiError, a 400 that names the field, if `value` is not what the field may hold."""
    try:
        check_table({name: value}, {name: key}, prefix=prefix)
    except ProfileError as error:
        raise ApiError(400, error.message, param=prefix + name, code="invalid_value") from None


def refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], prefix: str = "") -> None:
    """Raise ApiError, a 400 that names the field, if one is unknown."""
    for name in given:
        if name not in known:
            shown = name if len(name) <= 60 else name[:59] + "…"
            near = nearest(shown, known)
            meant = f"; did you mean `{near}`?" if near else ""
            raise ApiError(
                400,
                f"unknown field `{prefix}{shown}`{meant}",
                param=prefix + shown,
                code="unknown_parameter",
            )
