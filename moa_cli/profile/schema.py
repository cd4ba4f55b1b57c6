"""A profile's tables: their keys, the check, and the way to values and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moa_cli.config.tables import Key, check_table, value_above
from moa_cli.core.errors import ProfileError
from moa_cli.profile.values import Aggregator, ModelSettings, Origin, Profile, Proposer

__all__ = [
    "AGGREGATOR_KEYS",
    "PROFILE_KEYS",
    "PROPOSER_KEYS",
    "build",
    "dump",
    "to_table",
]

MODEL_KEYS: dict[str, Key] = {
    "model": Key("text", "model name, `provider:model-id`"),
    "temperature": Key("number", "sampling temperature; unset leaves it to the model", 0, 2),
    "max_tokens": Key("whole", "most tokens an answer may have", 1),
    "system": Key("text", "system prompt, in place of the profile's", blank=True),
    "timeout": Key("number", "seconds a call may take, retries included", 0.001),
    "top_p": Key("number", "nucleus sampling, 0 to 1", 0, 1),
    "seed": Key("whole", "seed for sampling, where the endpoint takes one"),
    "extra": Key("table", "further fields of the request, sent as they are"),
}
PROPOSER_KEYS: dict[str, Key] = {
    **MODEL_KEYS,
    "name": Key("text", "name shown on screen; empty: the model's", blank=True),
    "samples": Key("whole", "independent samples of each proposer", 1, 64),
}
AGGREGATOR_KEYS: dict[str, Key] = {
    **MODEL_KEYS,
    "fallbacks": Key("texts", "models tried in order if this one fails before its first token"),
}
PROFILE_KEYS: dict[str, Key] = {
    "description": Key("text", "one line on what the profile is for", blank=True),
    "rounds": Key("whole", "layers of proposers; 0 asks the aggregator alone", 0, 10),
    "multi_turn": Key("flag", "whether earlier turns are sent along"),
    "system": Key("text", "system prompt for all models", blank=True),
    "temperature": Key("number", "temperature of the models; unset leaves it to each", 0, 2),
    "max_tokens": Key("whole", "most tokens that an answer may have", 1),
    "timeout": Key("number", "timeout for models without one of their own, seconds", 0.001),
    "reference_placement": Key(
        "text", "where references go: `system` or `user` message", choices=("system", "user")
    ),
    "on_all_failed": Key(
        "text",
        "if no proposer answers: fail, or let the aggregator answer alone (solo)",
        choices=("fail", "solo"),
    ),
    "proposers": Key("tables", "the models that answer in every layer"),
    "layers": Key("tables", "layers with proposers of their own"),
    "aggregator": Key("table", "the model that writes the reply"),
}
_LAYER_KEYS = {"proposers": Key("tables", "the models that answer in this layer")}
_MODEL_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_TABLES = ("proposers", "layers", "aggregator")


def build(
    name: str, table: Mapping[str, Any], origins: Mapping[str, Origin] | None = None
) -> Profile:
    """A profile from its tables.

    origins: where each value came from, by dotted path (`aggregator.model`).
    Raises ProfileError that names the place and the key.
    """
    origins = origins or {}
    place = {path: str(origin) for path, origin in origins.items()}
    check_table(table, PROFILE_KEYS, place=place)
    proposers = _proposers(table.get("proposers", []), "proposers", place)
    layers = _layers(table.get("layers", []), proposers, place)
    plain = {key: table[key] for key in PROFILE_KEYS.keys() - set(_TABLES) if key in table}
    if "temperature" in plain:
        plain["temperature"] = float(plain["temperature"])
    if "timeout" in plain:
        plain["timeout"] = float(plain["timeout"])
    rounds = plain.pop("rounds", len(layers) if layers else int(bool(proposers)))
    _check_rounds(name, rounds, proposers, layers, place)
    return Profile(
        name=name,
        aggregator=_aggregator(name, table, place),
        proposers=proposers,
        layers=layers,
        rounds=rounds,
        origins=dict(origins),
        **plain,
    )


def _check_rounds(
    name: str,
    rounds: int,
    proposers: tuple[Proposer, ...],
    layers: tuple[tuple[Proposer, ...], ...],
    place: Mapping[str, str],
) -> None:
    where = value_above(place, "rounds") or name
    if layers and rounds > len(layers):
        raise ProfileError(
            f"{where}: `rounds` is {rounds}, but the profile lists {len(layers)} layers",
            hint=f"use at most {len(layers)} rounds, or add [[layers]]",
        )
    if rounds and not layers and not proposers:
        where = place.get("proposers", where)
        raise ProfileError(
            f"{where}: `rounds` is {rounds}, but there are no proposers",
            hint="add [[proposers]], name models with -m, or use 0 rounds",
        )


def _aggregator(name: str, table: Mapping[str, Any], place: Mapping[str, str]) -> Aggregator:
    if "aggregator" not in table:
        raise ProfileError(
            f"{place.get('', name)}: there is no [aggregator]",
            hint="every mixture needs a model that replies",
        )
    settings = _model_settings(table["aggregator"], AGGREGATOR_KEYS, "aggregator.", place)
    settings["fallbacks"] = tuple(settings.get("fallbacks", ()))
    for fallback in settings["fallbacks"]:
        _check_model_name(fallback, "aggregator.fallbacks", place)
    return Aggregator(**settings)


def _proposers(
    tables: list[dict[str, Any]], path: str, place: Mapping[str, str]
) -> tuple[Proposer, ...]:
    return tuple(
        Proposer(**_model_settings(table, PROPOSER_KEYS, f"{path}[{number}].", place))
        for number, table in enumerate(tables, 1)
    )


def _layers(
    tables: list[dict[str, Any]], default: tuple[Proposer, ...], place: Mapping[str, str]
) -> tuple[tuple[Proposer, ...], ...]:
    layers = []
    for number, table in enumerate(tables, 1):
        prefix = f"layers[{number}]."
        check_table(table, _LAYER_KEYS, prefix=prefix, place=place)
        own = _proposers(table.get("proposers", []), f"{prefix}proposers", place)
        if not own and not default:
            where = _where(place, prefix.rstrip("."))
            raise ProfileError(f"{where}`{prefix}proposers` is empty")
        layers.append(own or default)
    return tuple(layers)


def _model_settings(
    table: Mapping[str, Any], keys: Mapping[str, Key], prefix: str, place: Mapping[str, str]
) -> dict[str, Any]:
    check_table(table, keys, prefix=prefix, place=place)
    if "model" not in table:
        raise ProfileError(f"{_where(place, prefix.rstrip('.'))}`{prefix}model` is missing")
    _check_model_name(table["model"], f"{prefix}model", place)
    _check_extra(table.get("extra", {}), f"{prefix}extra", place)
    settings = dict(table)
    for number in ("temperature", "timeout", "top_p"):
        if number in settings:
            settings[number] = float(settings[number])
    return settings


def _check_model_name(model: str, path: str, place: Mapping[str, str]) -> None:
    if not _MODEL_NAME.fullmatch(model):
        raise ProfileError(f"{_where(place, path)}`{path}` is not a model name: {model!r}")


def _check_extra(extra: Mapping[str, Any], path: str, place: Mapping[str, str]) -> None:
    if not extra:
        return
    import json

    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError):
        raise ProfileError(
            f"{_where(place, path)}`{path}` holds what a request cannot: a date, inf or nan"
        ) from None


def _where(place: Mapping[str, str], path: str) -> str:
    source = value_above(place, path)
    return f"{source}: " if source else ""


def to_table(profile: Profile) -> dict[str, Any]:
    """The tables of a profile's file; what is at its default is left out."""
    table: dict[str, Any] = {}
    default = Profile(name="", aggregator=Aggregator(model="-"))
    for key in PROFILE_KEYS.keys() - set(_TABLES):
        value = getattr(profile, key)
        if key == "rounds" or value != getattr(default, key):
            table[key] = value
    ordered = {key: table[key] for key in PROFILE_KEYS if key in table}
    if profile.proposers:
        ordered["proposers"] = [_settings_table(one, PROPOSER_KEYS) for one in profile.proposers]
    if profile.layers:
        ordered["layers"] = [
            {"proposers": [_settings_table(one, PROPOSER_KEYS) for one in layer]}
            for layer in profile.layers
        ]
    ordered["aggregator"] = _settings_table(profile.aggregator, AGGREGATOR_KEYS)
    return ordered


def _settings_table(one: ModelSettings, keys: Mapping[str, Key]) -> dict[str, Any]:
    values = {key: getattr(one, key) for key in keys}
    values = {key: value for key, value in values.items() if value not in (None, (), {})}
    if values.get("samples") == 1:
        del values["samples"]
    return {key: list(value) if key == "fallbacks" else value for key, value in values.items()}


def dump(profile: Profile) -> str:
    """The profile as the text of a TOML file; reading it back gives an equal profile."""
    import tomli_w

    table = to_table(profile)
    # A multi-line TOML string would turn a carriage return into a line end.
    return tomli_w.dumps(table, multiline_strings="\\r" not in repr(table))
