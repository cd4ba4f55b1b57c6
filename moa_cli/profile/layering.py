"""Layering of settings: profile file < MOA_* environment < flags."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from moa_cli.config.tables import read_toml, value_above
from moa_cli.core.errors import ProfileError
from moa_cli.profile.files import file_origins, find
from moa_cli.profile.schema import AGGREGATOR_KEYS, PROFILE_KEYS, build, to_table
from moa_cli.profile.values import Origin, Placement, Profile

__all__ = [
    "SETTABLE",
    "Overrides",
    "add_proposer",
    "drop_proposer",
    "model_faults",
    "override",
    "resolve",
    "rows",
    "set_value",
]

# What `/set` may change: plain settings of the profile, and of its aggregator.
SETTABLE = (
    *(key for key, one in PROFILE_KEYS.items() if one.kind not in ("table", "tables")),
    *(f"aggregator.{key}" for key, one in AGGREGATOR_KEYS.items() if one.kind != "table"),
)

_FLAGS = {
    "aggregator": "--aggregator",
    "reference_models": "--reference-model",
    "samples": "--samples",
    "temperature": "--temperature",
    "max_tokens": "--max-tokens",
    "rounds": "--rounds",
    "multi_turn": "--multi-turn",
    "system": "--system",
    "reference_placement": "--reference-placement",
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Overrides:
    """Settings laid over a profile; None means not given.

    temperature and max_tokens then hold for every model of the profile.
    """

    aggregator: str | None = None
    reference_models: tuple[str, ...] | None = None
    samples: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    rounds: int | None = None
    multi_turn: bool | None = None
    system: str | None = None
    reference_placement: Placement | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Overrides:
        """The overrides in MOA_AGGREGATOR, MOA_REFERENCE_MODELS (comma-separated), MOA_ROUNDS, …

        Raises ProfileError naming the variable whose value cannot be read.
        """
        given: dict[str, Any] = {}
        for one in fields(cls):
            variable = f"MOA_{one.name.upper()}"
            text = environment.get(variable, "")
            if text:
                given[one.name] = _parse(one.name, variable, text)
        return cls(**given)


def _parse(setting: str, variable: str, text: str) -> object:
    if setting == "reference_models":
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not names:
            raise ProfileError(f"{variable}: names no model")
        return names
    if setting == "multi_turn":
        if text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        raise ProfileError(f"{variable}: must be true or false, not {text!r}")
    numbers = {"temperature": float, "rounds": int, "max_tokens": int, "samples": int}
    if setting not in numbers:
        return text
    try:
        return numbers[setting](text)
    except ValueError:
        kind = "a number" if setting == "temperature" else "a whole number"
        raise ProfileError(f"{variable}: must be {kind}, not {text!r}") from None


def resolve(
    name_or_path: str,
    *,
    environment: Mapping[str, str],
    flags: Overrides | None = None,
    check: Callable[[Profile], object] | None = None,
) -> Profile:
    """The profile with the MOA_* environment and the typed flags laid over it.

    check: refuses, by raising, what no profile can tell by itself, such as an unknown provider.
    Raises ProfileError that names the file, variable or flag which is wrong.
    """
    file = find(name_or_path)
    table = read_toml(file.path)
    origins = file_origins(table, file.path)
    # The file is checked by itself first: a wrong file must not hide behind a flag.
    alone = build(file.name, table, origins)
    if check is not None:
        check(alone)
    around, typed = Overrides.from_environment(environment), flags or Overrides()
    _lay(table, origins, around, "environment")
    _lay(table, origins, typed, "flag")
    if typed.reference_models and typed.samples is None:
        # The proposers that the environment's samples were laid on are gone.
        _lay(table, origins, Overrides(samples=around.samples), "environment")
    profile = build(file.name, table, origins)
    if check is not None:
        check(profile)
    return profile


def override(profile: Profile, overrides: Overrides, where: str = "") -> Profile:
    """`profile` with `overrides` laid over it, as a slash command does.

    Raises ProfileError where the result would be no valid profile.
    """
    table = copy.deepcopy(to_table(profile))
    origins = dict(profile.origins)
    _lay(table, origins, overrides, "flag", where)
    return build(profile.name, table, origins)


def set_value(profile: Profile, path: str, text: str, where: str) -> Profile:
    """`profile` with one of the SETTABLE paths set. text: as in a profile's file, or a bare word.

    Raises ProfileError where the value is not one that the key takes.
    """
    table = copy.deepcopy(to_table(profile))
    holder, _, key = path.rpartition(".")
    (table[holder] if holder else table)[key] = _toml_value(text)
    return build(profile.name, table, {**profile.origins, path: Origin("flag", where)})


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        # No TOML: a bare word. (A number of thousands of digits is no TOMLDecodeError.)
        return text


def add_proposer(profile: Profile, model: str, where: str) -> Profile:
    """`profile` with one more proposer in every round."""
    table = copy.deepcopy(to_table(profile))
    table.setdefault("proposers", []).append({"model": model})
    for layer in table.get("layers", []):
        layer["proposers"].append({"model": model})
    table["rounds"] = max(1, profile.rounds)
    place = f"proposers[{len(table['proposers'])}]"
    return build(profile.name, table, {**profile.origins, place: Origin("flag", where)})


def drop_proposer(profile: Profile, model: str, where: str) -> Profile:
    """`profile` without the proposers of that model or name.

    Raises ProfileError if there is none, or none would be left in a round.
    """
    table = copy.deepcopy(to_table(profile))
    dropped = 0
    for holder in (table, *table.get("layers", [])):
        before = holder.get("proposers", [])
        after = [one for one in before if model not in (one["model"], one.get("name"))]
        dropped += len(before) - len(after)
        if before and not after:
            raise ProfileError(
                "the last proposer of a round cannot be dropped", hint="use /rounds 0"
            )
        if after:
            holder["proposers"] = after
    if not dropped:
        names = [one.name or one.model for one in profile.proposers]
        raise ProfileError(f"there is no proposer `{model}`", hint=f"there are {', '.join(names)}")
    # The places have moved; what is left comes from this command as far as anyone can say.
    return build(profile.name, table, {**profile.origins, "proposers": Origin("flag", where)})


def _lay(
    table: dict[str, Any],
    origins: dict[str, Origin],
    over: Overrides,
    kind: Literal["environment", "flag"],
    where: str = "",
) -> None:
    def note(path: str, setting: str) -> None:
        for old in [p for p in origins if p == path or p.startswith((f"{path}.", f"{path}["))]:
            del origins[old]
        name = _FLAGS[setting] if kind == "flag" else f"MOA_{setting.upper()}"
        origins[path] = Origin(kind, where or name)

    for setting in ("rounds", "multi_turn", "system", "reference_placement"):
        value = getattr(over, setting)
        if value is not None:
            table[setting] = value
            note(setting, setting)
    _lay_models(table, over, note)
    for setting in ("temperature", "max_tokens"):
        value = getattr(over, setting)
        if value is not None:
            table[setting] = value
            note(setting, setting)
            for path, one in _model_tables(table):
                if one.pop(setting, None) is not None:
                    note(f"{path}.{setting}", setting)
    if over.samples is not None:
        for path, one in _model_tables(table):
            if path != "aggregator":
                one["samples"] = over.samples
                note(f"{path}.samples", "samples")


def _lay_models(table: dict[str, Any], over: Overrides, note: Callable[[str, str], None]) -> None:
    if over.reference_models is not None:
        table.pop("layers", None)
        table["proposers"] = [{"model": model} for model in over.reference_models]
        note("layers", "reference_models")
        note("proposers", "reference_models")
        if over.reference_models and not table.get("rounds", 1) and over.rounds is None:
            table["rounds"] = 1
            note("rounds", "reference_models")
    if over.aggregator is not None:
        # Another model: what was tuned for the old one does not go with it.
        kept = table.get("aggregator", {})
        table["aggregator"] = {
            key: kept[key] for key in ("temperature", "max_tokens", "system") if key in kept
        } | {"model": over.aggregator}
        note("aggregator.model", "aggregator")


def _model_tables(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, one in enumerate(table.get("proposers", []), 1):
        yield f"proposers[{number}]", one
    for number, layer in enumerate(table.get("layers", []), 1):
        for place, one in enumerate(layer.get("proposers", []), 1):
            yield f"layers[{number}].proposers[{place}]", one
    if "aggregator" in table:
        yield "aggregator", table["aggregator"]


def model_faults(profile: Profile, check: Callable[[str], object]) -> Iterator[ProfileError]:
    """What `check` says, by raising ProfileError, against model names of `profile`.

    All its names are checked, also those that no turn would call. Each error begins with the
    place of the name: the file and the key, or the variable, option or command that set it.
    """
    for path, model in _model_names(to_table(profile)):
        try:
            check(model)
        except ProfileError as error:
            origin = _origin(profile, path)
            place = f"{origin.where}: " if origin.where else ""
            if origin.kind in ("profile", "default"):
                place += f"`{path}`: "
            yield ProfileError(f"{place}{error.message}", hint=error.hint)


def _model_names(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, one in _model_tables(table):
        yield f"{path}.model", one["model"]
        for number, fallback in enumerate(one.get("fallbacks", ()), 1):
            yield f"{path}.fallbacks[{number}]", fallback


def rows(profile: Profile) -> list[tuple[str, object, Origin]]:
    """Each setting of `profile` that is in force: dotted path, value, origin."""
    defaults = {
        "rounds": profile.rounds,
        "multi_turn": profile.multi_turn,
        "system": profile.system,
        "temperature": profile.temperature,
        "max_tokens": profile.max_tokens,
        "timeout": profile.timeout,
        "reference_placement": profile.reference_placement,
        "on_all_failed": profile.on_all_failed,
    }
    table = to_table(profile)
    found: list[tuple[str, object, Origin]] = []
    for key, value in defaults.items():
        found.append((key, value, _origin(profile, key)))
    for path, one in _model_tables(table):
        for key, value in one.items():
            found.append((f"{path}.{key}", value, _origin(profile, f"{path}.{key}")))
    return found


def _origin(profile: Profile, path: str) -> Origin:
    # Not "": a value that the file leaves out is a default, though the file was read.
    known = {place: origin for place, origin in profile.origins.items() if place}
    return value_above(known, path) or Origin("default")
