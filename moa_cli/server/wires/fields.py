"""Sorts the fields of a request that a mixture does not use itself.

There are three classes. *Hints* and bookkeeping change nothing in a reply: they are accepted, and
named in `moa.ignored`. Fields that describe the reply are *passed on* to the model that writes it,
and left out if its endpoint refuses them. Fields that change the meaning of a request and are not
supported are *refused*. An unknown field counts as a hint, because clients add fields every month.
With `--strict`, fields without an effect are refused, and nothing is passed on.

Sources: the API references of OpenAI, OpenRouter, Together, Mistral, vLLM, SGLang, llama.cpp and
Ollama.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

# The fields to pass on, by the names that endpoints use.
PASSED: Mapping[str, str] = {
    name: told
    for told, names in {
        "sampling of the reply": """
            top_k top_a min_p typical_p tfs tfs_z
            repetition_penalty repeat_penalty repeat_last_n no_repeat_ngram_size length_penalty
            mirostat mirostat_tau mirostat_eta
            dry_multiplier dry_base dry_allowed_length dry_sequence_breakers
            xtc_probability xtc_threshold dynatemp_range dynatemp_exponent samplers
            logit_bias min_tokens ignore_eos stop_token_ids bad_words
            skip_special_tokens spaces_between_special_tokens include_stop_str_in_output
            n_predict num_predict num_ctx
        """,
        "reasoning and form of the reply": """
            verbosity thinking enable_thinking thinking_budget
            reasoning include_reasoning reasoning_format reasoning_split think
            chat_template_kwargs prompt_mode safe_prompt
        """,
        "constraints on the reply": """
            guided_json guided_regex guided_choice guided_grammar structured_outputs
            grammar json_schema prediction
        """,
        "handling by the provider": """
            provider models route transforms plugins web_search_options search_parameters
            options keep_alive
        """,
    }.items()
    for name in names.split()
}
# Well-known hints. Any other unknown field is a hint, too.
_HINTS = """
    store metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention
    cache_control session_id usage best_of echo suffix
"""
HINTS: Mapping[str, str] = dict.fromkeys(_HINTS.split(), "no effect")
# Values that mean the same as a missing field. Such fields are not named as ignored.
_NEUTRAL: tuple[Any, ...] = (None, False, [], {}, "", "auto", "default")
_NEUTRAL_OF: Mapping[str, Any] = {"best_of": 1}
_MOST_NAMED = 32
_LONGEST_NAME = 60
_WORD = re.compile(r"[\w.-]{1,40}")


def sort_fields(
    given: Mapping[str, Any], known: Collection[str], *, strict: bool
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The fields of a body in three groups: those in `known`, those to pass on, and the names of
    those without an effect.

    strict: put all fields into the first group, so that its check refuses unknown ones.
    """
    kept, passed, ignored = {}, {}, []
    for name, value in given.items():
        if name in known or strict:
            kept[name] = value
        elif name in PASSED:
            if value not in (None, [], {}):
                passed[name] = value
        elif not is_neutral(name, value):
            ignored.append(name)
    return kept, passed, ignored


def only_known(given: Any, known: Collection[str], ignored: list[str], place: str = "") -> Any:
    """A JSON object with only its known fields; any other value is returned unchanged.

    ignored: the names of the other fields are added to it, with the prefix `place`, unless their
    value means nothing.
    """
    if not isinstance(given, Mapping):
        return given
    kept = {}
    for name, value in given.items():
        if name in known:
            kept[name] = value
        elif not is_neutral(name, value):
            ignored.append(f"{place}{name}")
    return kept


def is_neutral(name: str, value: Any) -> bool:
    """Whether the value of a hint means the same as a missing field."""
    if value == _NEUTRAL_OF.get(name, object()):
        return True
    return any(value == neutral and type(value) is type(neutral) for neutral in _NEUTRAL)


def named(ignored: Collection[str]) -> tuple[str, ...]:
    """The names of ignored fields for the reply and the log: each name once, shortened, and not too
    many. The type after `=` is dropped unless it is a word, because it may be a user's text, which
    the log must not hold."""
    names = []
    for name in dict.fromkeys(ignored):
        place, _, kind = name.partition("=")
        shown = name if not kind or _WORD.fullmatch(kind) else place
        names.append(shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…")
    return tuple(dict.fromkeys(names))[:_MOST_NAMED]
