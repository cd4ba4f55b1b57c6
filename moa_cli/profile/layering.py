"""Layers the settings of a profile: profile file < MOA_* environment < flags."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from moa_cli.config.toml import value_of
from moa_cli.core.errors import ProfileError
from moa_cli.core.strategy import Strategy
from moa_cli.core.values import TOML, KeyPath
from moa_cli.profile import merge_prompt
from moa_cli.profile.files import find, read_tables
from moa_cli.profile.schema import (
    AGGREGATOR_KEYS,
    OF_A_LAYER,
    PROFILE_KEYS,
    PROPOSER_KEYS,
    Aggregator,
    ChosenBy,
    FanOut,
    Origin,
    Origins,
    Placement,
    Profile,
    ReferenceFormat,
    Tools,
    build,
    origin_of,
    to_table,
)

# The settings that `/set` may change: plain settings of the profile and of its aggregator.
SETTABLE = (
    *(name for name, key in PROFILE_KEYS.items() if key.kind not in ("table", "tables")),
    *(f"aggregator.{name}" for name, key in AGGREGATOR_KEYS.items() if key.kind != "table"),
)

# The names of mixtures without a profile's file: for typed models, and for models that were found
# on this machine.
TYPED, FOUND = "typed", "found"
# A list in MOA_REFERENCE_MODELS; the option --reference-model names one model at a time.
_MODELS = "reference_models"
# Options whose name differs from the setting's.
_OPTIONS = {_MODELS: "reference_model", "judge": "judge_model"}
_OF_EACH_MODEL = ("temperature", "max_tokens", "timeout", "stall", "first_token", "hedge_after")


@dataclass(frozen=True)
class Overrides:
    """Settings that override those of a profile; None means not given.

    Settings that each model may have (temperature, max_tokens, timeout, stall, first_token,
    hedge_after) then apply to every model of the profile, and quorum and patience to every layer.
    """

    aggregator: str | None = None
    reference_models: tuple[str, ...] | None = None
    samples: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    rounds: int | None = None
    multi_turn: bool | None = None
    max_history: int | None = None
    system: str | None = None
    reference_placement: Placement | None = None
    reference_format: ReferenceFormat | None = None
    reference_names: bool | None = None
    merge_prompt: str | None = None
    timeout: float | None = None
    stall: float | None = None
    first_token: float | None = None
    hedge_after: float | None = None
    quorum: int | None = None
    patience: float | None = None
    use_partial: bool | None = None
    overlap: bool | None = None
    tools: Tools | None = None
    fan_out: FanOut | None = None
    strategy: Strategy | None = None
    judge: str | None = None
    final_answer: str | None = None
    chosen_by: ChosenBy | None = None
    one_call: bool | None = None
    stop_when_agreed: float | None = None
    report: bool | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Overrides:
        """The overrides in MOA_AGGREGATOR, MOA_REFERENCE_MODELS (comma-separated), MOA_ROUNDS, …

        Raises ProfileError, naming the variable, if a value is not valid.
        """
        given: dict[str, Any] = {}
        for setting in fields(cls):
            variable = f"MOA_{setting.name.upper()}"
            if text := environment.get(variable, ""):
                given[setting.name] = _parse(setting.name, variable, text)
        return cls(**given)


_OF_THE_PROFILE = tuple(
    setting.name
    for setting in fields(Overrides)
    if setting.name not in ("aggregator", _MODELS, "samples", *_OF_EACH_MODEL)
)


def _parse(setting: str, variable: str, text: str) -> object:
    """The value of a variable's text. Raises ProfileError if it is not valid."""
    if setting == "aggregator":
        return text
    if setting == _MODELS:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not names:
            raise ProfileError("names no model", place=variable)
        return names
    key = {**PROPOSER_KEYS, **PROFILE_KEYS}[setting]
    value = value_of(text, key)
    if isinstance(value, str) and key.kind != "text":
        raise ProfileError(f"must be {TOML.kinds[key.kind]}, not {text!r}", place=variable)
    return value


def resolve(
    name_or_path: str | None,
    *,
    environment: Mapping[str, str],
    flags: Overrides | None = None,
    check: Callable[[Profile], object] | None = None,
    tables: Mapping[str, Any] | None = None,
) -> Profile:
    """The profile with the overrides of the MOA_* environment and of the flags.

    name_or_path: None for a mixture without a profile's file: from `tables`, or from typed models
    alone. The first typed model writes the reply if there is no aggregator. check: raises an error
    for faults that a profile cannot detect itself, such as an unknown provider. Raises ProfileError
    that names the wrong file, variable or flag.
    """
    around, typed = Overrides.from_environment(environment), flags or Overrides()
    table: dict[str, Any] = dict(copy.deepcopy(tables or {}))
    origins: dict[KeyPath, Origin] = {}
    name = FOUND if tables else TYPED
    if name_or_path is not None:
        file = find(name_or_path)
        name = file.name
        table, origins = read_tables(file.path)
        # The file is checked by itself first, because a flag must not hide an error in the file.
        alone = build(file.name, table, origins)
        if check is not None:
            check(alone)
    _lay(table, origins, around, "environment")
    _lay(table, origins, typed, "flag")
    if typed.reference_models and typed.samples is None:
        # The flags have replaced the proposers, so the environment's samples are applied again.
        _lay(table, origins, Overrides(samples=around.samples), "environment")
    if name_or_path is None and "aggregator" not in table and table.get("proposers"):
        table["aggregator"] = {"model": table["proposers"][0]["model"]}
        origins["aggregator", "model"] = origins["proposers",]
    profile = build(name, table, origins)
    if check is not None:
        check(profile)
    return profile


def stored(settings: str, name: str, place: str, flags: Overrides | None = None) -> Profile | None:
    """The mixture that `dump` wrote as `settings`, with the overrides of the flags.

    The environment is not applied again, because the stored settings already include it.

    name: the name of its profile. place: where the settings are stored, for messages. Returns None
    if they are not those of a mixture, which happens after an import. Raises ProfileError if they
    are not a valid profile.
    """
    try:
        table = tomllib.loads(settings)
    except ValueError:
        return None
    if "aggregator" not in table:
        return None
    origins: dict[KeyPath, Origin] = {(key,): Origin("profile", place) for key in table}
    _lay(table, origins, flags or Overrides(), "flag")
    return build(name, table, origins)


def override(profile: Profile, overrides: Overrides, where: str = "") -> Profile:
    """`profile` with these overrides, as a slash command makes them.

    Raises ProfileError if the result is not a valid profile.
    """
    table = copy.deepcopy(to_table(profile))
    origins = dict(profile.origins)
    _lay(table, origins, overrides, "flag", where)
    return build(profile.name, table, origins)


def set_value(profile: Profile, path: str, text: str, where: str) -> Profile:
    """`profile` with a new value at one of the SETTABLE paths. text: a TOML value as in a profile's
    file, or a bare word; `none` unsets a key that may be unset.

    Raises ProfileError if the value is not valid for the key.
    """
    table = copy.deepcopy(to_table(profile))
    *above, key = path.split(".")
    holder = table[above[0]] if above else table
    if text == "none" and _may_be_unset(path):
        holder.pop(key, None)
        return _built(profile, table, (*above, key), where)
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        # Not TOML, so a bare word. (A number with thousands of digits raises another ValueError.)
        value = text
    if path == "merge_prompt":
        value = _merge_text(value, where)
    holder[key] = value
    return _built(profile, table, (*above, key), where)


def _may_be_unset(path: str) -> bool:
    """Whether a SETTABLE path is unset by default, and `none` is not one of its values."""
    *above, key = path.split(".")
    known, of = (AGGREGATOR_KEYS, Aggregator) if above else (PROFILE_KEYS, Profile)
    default = next(field.default for field in fields(of) if field.name == key)
    return default in (None, "") and "none" not in known[key].choices


def without(profile: Profile, setting: str, where: str) -> Profile:
    """`profile` without this setting, in the profile itself and in each of its models."""
    table = copy.deepcopy(to_table(profile))
    for holder in (table, *(model for _, model in _model_tables(table))):
        holder.pop(setting, None)
    return _built(profile, table, (setting,), where)


def _merge_text(value: object, place: str) -> object:
    """The text of a typed merge prompt: of the file that it names, or the value itself."""
    if isinstance(value, str) and merge_prompt.names_file(value):
        return merge_prompt.read_file(value, Path(), place)[0]
    return value


def _built(profile: Profile, table: dict[str, Any], path: KeyPath, where: str) -> Profile:
    """A profile from these tables, where the value at `path` comes from a slash command."""
    return build(profile.name, table, _marked(profile.origins, path, Origin("flag", where)))


def _marked(origins: Origins, path: KeyPath, origin: Origin) -> dict[KeyPath, Origin]:
    """`origins` with this origin for the value at `path` and everything in it."""
    others = {known: old for known, old in origins.items() if known[: len(path)] != path}
    return {**others, path: origin}


def add_proposer(profile: Profile, model: str, where: str) -> Profile:
    """`profile` with one more proposer in every round."""
    table = copy.deepcopy(to_table(profile))
    table.setdefault("proposers", []).append({"model": model})
    for layer in table.get("layers", []):
        layer["proposers"].append({"model": model})
    table["rounds"] = max(1, profile.rounds)
    return _built(profile, table, ("proposers", len(table["proposers"]) - 1), where)


def drop_proposer(profile: Profile, model: str, where: str) -> Profile:
    """`profile` without the proposers of that model or name.

    Raises ProfileError if there is none, or none would be left in a round.
    """
    table = copy.deepcopy(to_table(profile))
    dropped = 0
    for holder in (table, *table.get("layers", [])):
        before = holder.get("proposers", [])
        after = [entry for entry in before if model not in (*_candidates(entry), entry.get("name"))]
        dropped += len(before) - len(after)
        if before and not after:
            raise ProfileError(
                "the last proposer of a round cannot be dropped", hint="use /rounds 0"
            )
        if after:
            holder["proposers"] = after
    if not dropped:
        names = [proposer.name or proposer.model for proposer in profile.proposers]
        raise ProfileError(f"there is no proposer `{model}`", hint=f"there are {', '.join(names)}")
    # The indexes have changed, so the command becomes the origin of all remaining proposers.
    return _built(profile, table, ("proposers",), where)


def _candidates(proposer: Mapping[str, Any]) -> list[str]:
    model = proposer["model"]
    return [model] if isinstance(model, str) else list(model)


def _lay(
    table: dict[str, Any],
    origins: dict[KeyPath, Origin],
    over: Overrides,
    kind: Literal["environment", "flag"],
    where: str = "",
) -> None:
    def source(setting: str) -> str:
        option = f"--{_OPTIONS.get(setting, setting).replace('_', '-')}"
        return where or (option if kind == "flag" else f"MOA_{setting.upper()}")

    def note(path: KeyPath, setting: str) -> None:
        marked = _marked(origins, path, Origin(kind, source(setting)))
        origins.clear()
        origins.update(marked)

    def lay(setting: str) -> bool:
        value = getattr(over, setting)
        if setting == "merge_prompt":
            value = _merge_text(value, source(setting))
        if value is not None:
            table[setting] = value
            note((setting,), setting)
        return value is not None

    if over.reference_models is not None:
        _drop_counts(table, origins, lambda key: note((key,), _MODELS))
    for setting in _OF_THE_PROFILE:
        if lay(setting) and setting in OF_A_LAYER:
            for place, layer in enumerate(table.get("layers", [])):
                if layer.pop(setting, None) is not None:
                    note(("layers", place, setting), setting)
    _lay_models(table, over, note)
    for setting in _OF_EACH_MODEL:
        if lay(setting):
            for path, model in _model_tables(table):
                if model.pop(setting, None) is not None:
                    note((*path, setting), setting)
    if over.samples is not None:
        _drop_counts(table, origins, lambda key: note((key,), "samples"))
        for path, model in _model_tables(table):
            if path != ("aggregator",):
                model["samples"] = over.samples
                note((*path, "samples"), "samples")


def _drop_counts(
    table: dict[str, Any], origins: Mapping[KeyPath, Origin], note: Callable[[str], None]
) -> None:
    """Remove the quorum and the route of the profile's file, because they are for another number of
    answers."""
    for key in ("quorum", "route"):
        origin = origin_of(origins, (key,))
        if key in table and origin is not None and origin.kind == "profile":
            del table[key]
            note(key)


def _lay_models(
    table: dict[str, Any], over: Overrides, note: Callable[[KeyPath, str], None]
) -> None:
    if over.reference_models is not None:
        table.pop("layers", None)
        table["proposers"] = [{"model": model} for model in over.reference_models]
        # The description is about other models.
        table.pop("description", None)
        note(("layers",), _MODELS)
        note(("proposers",), _MODELS)
        if over.reference_models and not table.get("rounds", 1) and over.rounds is None:
            table["rounds"] = 1
            note(("rounds",), _MODELS)
    if over.aggregator is not None:
        # Settings that were tuned for the old model are dropped.
        kept = table.get("aggregator", {})
        table["aggregator"] = {
            key: kept[key] for key in ("temperature", "max_tokens", "system") if key in kept
        } | {"model": over.aggregator}
        note(("aggregator", "model"), "aggregator")


def _model_tables(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    holders: list[tuple[KeyPath, Mapping[str, Any]]] = [((), table)]
    holders += [(("layers", place), layer) for place, layer in enumerate(table.get("layers", []))]
    for path, holder in holders:
        for place, proposer in enumerate(holder.get("proposers", [])):
            yield (*path, "proposers", place), proposer
    if "aggregator" in table:
        yield ("aggregator",), table["aggregator"]


def waiting_for_all(profile: Profile) -> Profile:
    """`profile` without its quorums and related settings, except those that an option set: the
    results must not depend on which models were slow, unless the user asks for that."""

    def typed(setting: str) -> bool:
        origin = profile.origins.get((setting,))
        return origin is not None and origin.kind == "flag"

    if typed("quorum") and profile.quorum is not None:
        return profile
    keep = [setting for setting in ("use_partial", "overlap") if typed(setting)]
    values = {setting: getattr(profile, setting) for setting in keep}
    default = Profile(name="", aggregator=profile.aggregator)
    layers = tuple(replace(layer, quorum=None, patience=None) for layer in profile.layers)
    return replace(
        profile,
        layers=layers,
        quorum=None,
        patience=default.patience,
        use_partial=values.get("use_partial", False),
        overlap=values.get("overlap", False),
    )


def _all_names(profile: Profile) -> Iterator[str]:
    proposers = [*profile.proposers]
    for layer in profile.layers:
        proposers += layer.proposers
    for settings in (*proposers, profile.aggregator):
        yield from settings.candidates
        if settings.hedge_with is not None:
            yield settings.hedge_with
    yield from profile.aggregator.fallbacks
    if profile.judge is not None:
        yield profile.judge


def model_faults(profile: Profile, check: Callable[[str], object]) -> Iterator[ProfileError]:
    """The ProfileErrors that `check` raises for model names of `profile`.

    All names are checked, also those that no turn would call. Each error begins with the place of
    the name: the file and the key, or the variable, option or command that set it.
    """
    try:
        for name in _all_names(profile):
            check(name)
        # The fast path: this runs before each turn, and usually all names are valid.
        return
    except ProfileError:
        pass
    for path, model in _named_models(profile):
        try:
            check(model)
        except ProfileError as error:
            origin = _origin(profile, path)
            in_file = origin.kind in ("profile", "default")
            problem = f"`{TOML.path(path)}`: {error.problem}" if in_file else error.problem
            yield ProfileError(problem, place=origin.where, path=path, hint=error.hint)


def _named_models(profile: Profile) -> Iterator[tuple[KeyPath, str]]:
    """The model names of `profile`, each with its path."""
    for path, table in _model_tables(to_table(profile)):
        if isinstance(table["model"], str):
            yield (*path, "model"), table["model"]
        else:
            for place, name in enumerate(table["model"]):
                yield (*path, "model", place), name
        if "hedge_with" in table:
            yield (*path, "hedge_with"), table["hedge_with"]
        for place, fallback in enumerate(table.get("fallbacks", ())):
            yield (*path, "fallbacks", place), fallback
    if profile.judge is not None:
        yield ("judge",), profile.judge


def rows(profile: Profile) -> list[tuple[str, object, Origin]]:
    """Each setting of `profile` with the value in force: dotted path, value, origin."""
    settings = [key for key in SETTABLE if key in PROFILE_KEYS and key != "description"]
    found: list[tuple[KeyPath, object]] = [((key,), getattr(profile, key)) for key in settings]
    for place, layer in enumerate(profile.layers):
        own = [(key, getattr(layer, key)) for key in OF_A_LAYER]
        found += [(("layers", place, key), value) for key, value in own if value is not None]
    table = to_table(profile)
    for place, stage in enumerate(table.get("route", ())):
        found += [(("route", place, key), value) for key, value in stage.items()]
    for path, model in _model_tables(table):
        found += [((*path, key), value) for key, value in model.items()]
    return [(TOML.path(path), value, _origin(profile, path)) for path, value in found]


def _origin(profile: Profile, path: KeyPath) -> Origin:
    # Without the origin of the whole file, (): a value that the file leaves out is a default.
    known = {place: origin for place, origin in profile.origins.items() if place}
    return origin_of(known, path) or Origin("default")
