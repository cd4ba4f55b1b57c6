"""Slash commands for the mixture: its profile, models and settings."""

from __future__ import annotations

import os
from dataclasses import replace
from operator import attrgetter

from moa_cli.chat.commands.registry import (
    NO,
    Host,
    Section,
    Suggestion,
    command,
    model_words,
    switch,
    whole,
)
from moa_cli.chat.outcomes import ChooseModels, Outcome
from moa_cli.config.palette import THEMES
from moa_cli.config.schema import CONFIG_KEYS
from moa_cli.core.errors import UsageError
from moa_cli.core.text import meant
from moa_cli.core.values import Key
from moa_cli.profile import Overrides, description_of, list_profiles, resolve, rows, save
from moa_cli.profile.layering import SETTABLE, add_proposer, drop_proposer, set_value, without
from moa_cli.profile.schema import AGGREGATOR_KEYS, PROFILE_KEYS
from moa_cli.terminal.plain import setting_text

# Keys of `/set` for the display of the chat. They hold for this chat. The settings with the same
# names (for `reasoning`, it is `show_reasoning`) hold permanently.
_SHOWN = ("accessible", "bell", "compact", "live", "plain", "reasoning", "title", "vi", "theme")
# Keys whose values are models.
_MODELS = ("judge", "aggregator.model")
_UNSET = setting_text(None)


def _profile_words(host: Host, typed: str) -> list[Suggestion]:
    return [
        Suggestion("list", "list the profiles"),
        Suggestion("show", "the settings in effect"),
        Suggestion("save ", "save the settings in effect under a name"),
        *(Suggestion(profile.name, description_of(profile)) for profile in list_profiles()),
    ]


def _proposer_words(host: Host, typed: str) -> list[str]:
    return list(dict.fromkeys(proposer.model for proposer in host.session.profile.proposers))


@command("profile", "[NAME | list | show | save NAME]", _profile_words, section=Section.MIXTURE)
def _profile(host: Host, argument: str) -> None:
    """Switch to a profile, list them, show or save the settings in effect."""
    word, _, rest = argument.partition(" ")
    session = host.session
    if word in ("list", "show") and rest:
        raise UsageError(
            f"/profile {word} takes no argument",
            hint=f"`moa profile {word} {rest}` shows a profile" if word == "show" else None,
        )
    if word == "list":
        host.say("\n".join(f"{profile.name}  ({profile.source})" for profile in list_profiles()))
    elif word == "show" or not word:
        settings = rows(session.profile)
        width = max(len(path) for path, _, _ in settings)
        host.say(f"profile {session.profile.name}")
        for path, value, origin in settings:
            host.say(f"{path:<{width}}  {setting_text(value)}  ({origin})")
    elif word == "save":
        if not rest.strip():
            raise UsageError("/profile save needs a name")
        host.say(f"saved: {save(session.profile, rest.strip())}")
    else:
        session.use(resolve(argument, environment=os.environ), settled=False)
        if session.profile.description:
            host.say(f"profile {session.profile.name}: {session.profile.description}")
        else:
            host.say(f"profile {session.profile.name}\n{session.models_text()}")


@command("aggregator", "[MODEL]", model_words, section=Section.MIXTURE)
def _aggregator(host: Host, argument: str) -> None:
    """Show or set the model that writes the reply."""
    if argument:
        host.session.change(Overrides(aggregator=argument), "/aggregator")
    host.say(f"aggregator {host.session.profile.aggregator.model}")


@command("model", "[WORDS]", section=Section.MIXTURE)
def _model(host: Host, argument: str) -> Outcome:
    """Choose proposers and aggregator from all models, with contexts and prices."""
    return ChooseModels(argument)


@command("models", "[MODEL,MODEL…]", model_words, section=Section.MIXTURE)
def _models(host: Host, argument: str) -> None:
    """Show the models, or set the proposers."""
    if argument:
        # Between commas a name may hold spaces.
        parts = argument.split(",") if "," in argument else argument.split()
        names = tuple(part.strip() for part in parts if part.strip())
        host.session.change(Overrides(reference_models=names), "/models")
    host.say(host.session.models_text())


@command("add", "MODEL", model_words, section=Section.MIXTURE)
def _add(host: Host, argument: str) -> None:
    """Add a proposer to every round."""
    session = host.session
    session.use(add_proposer(session.profile, argument, "/add"))
    host.say(host.session.models_text())


@command("drop", "MODEL", _proposer_words, section=Section.MIXTURE)
def _drop(host: Host, argument: str) -> None:
    """Remove a proposer from every round."""
    session = host.session
    session.use(drop_proposer(session.profile, argument, "/drop"))
    host.say(host.session.models_text())


@command("rounds", "[N]", ("0", "1", "2", "3"), section=Section.MIXTURE)
def _rounds(host: Host, argument: str) -> None:
    """Show or set the layers of proposers; 0 asks the aggregator alone."""
    if argument:
        host.session.change(Overrides(rounds=whole(argument)), "/rounds")
    host.say(f"rounds {host.session.profile.rounds}")


@command("temperature", "[T | none]", ("0", "0.3", "0.7", "1", "none"), section=Section.MIXTURE)
def _temperature(host: Host, argument: str) -> None:
    """Show or set the temperature of all models; none: each model's own default."""
    if argument == "none":
        host.session.use(without(host.session.profile, "temperature", "/temperature"))
    elif argument:
        try:
            value = float(argument)
        except ValueError:
            raise UsageError(f"{argument!r} is not a number") from None
        host.session.change(Overrides(temperature=value), "/temperature")
    host.say(f"temperature {setting_text(host.session.profile.temperature)}")


@command(
    "max-tokens",
    "[N | none]",
    ("256", "512", "1024", "2048", "4096", "none"),
    section=Section.MIXTURE,
)
def _max_tokens(host: Host, argument: str) -> None:
    """Show or set the most tokens of each answer; none: no limit."""
    if argument == "none":
        host.session.use(without(host.session.profile, "max_tokens", "/max-tokens"))
    elif argument:
        host.session.change(Overrides(max_tokens=whole(argument)), "/max-tokens")
    host.say(f"max-tokens {setting_text(host.session.profile.max_tokens)}")


@command("multi-turn", "[on | off]", ("on", "off"), section=Section.MIXTURE)
def _multi_turn(host: Host, argument: str) -> None:
    """Show or set whether earlier turns are sent along."""
    if argument:
        host.session.change(Overrides(multi_turn=switch("multi-turn", argument)), "/multi-turn")
    host.say(f"multi-turn {'on' if host.session.profile.multi_turn else 'off'}")


@command("system", "[TEXT | none]", ("none",), section=Section.MIXTURE)
def _system(host: Host, argument: str) -> None:
    """Show or set the system prompt of all models."""
    if argument:
        text = "" if argument == "none" else argument
        host.session.change(Overrides(system=text), "/system")
    host.say(f"system {host.session.profile.system or 'not set'}")


def _settings_words(host: Host, typed: str) -> list[Suggestion]:
    """The keys with their meanings; after a key, its possible values."""
    name, space, _ = typed.partition(" ")
    if not space:
        explained = {key: _key_of(key).help for key in SETTABLE} | {
            key: CONFIG_KEYS["show_reasoning" if key == "reasoning" else key].help for key in _SHOWN
        }
        return [Suggestion(f"{key} ", about) for key, about in explained.items()]
    if name in _MODELS:
        return model_words(host, typed)
    now = ""
    choices: list[str] = []
    if name == "bell":
        now, choices = setting_text(host.options.bell), ["off"]
    elif name == "theme":
        now, choices = host.options.look.theme, [*THEMES]
    elif name in _SHOWN:
        now, choices = "on" if getattr(host.options, name) else "off", ["on", "off"]
    elif name in SETTABLE:
        key, now = _key_of(name), setting_text(attrgetter(name)(host.session.profile))
        choices = ["true", "false"] if key.kind == "flag" else [*key.choices]
        choices = choices or [now] * (now != _UNSET)
    return [Suggestion(f"{name} {choice}", "now" if choice == now else "") for choice in choices]


def _key_of(name: str) -> Key:
    first, dot, rest = name.partition(".")
    return AGGREGATOR_KEYS[rest] if dot else PROFILE_KEYS[first]


@command("set", "KEY VALUE", _settings_words, section=Section.MIXTURE)
def _set(host: Host, argument: str) -> None:
    """Set any key of the profile (none: unset it), or how the chat is shown (bell, live, …)."""
    key, _, value = argument.partition(" ")
    value = value.strip()
    if not key or not value:
        raise UsageError("/set needs a key and a value", hint="/profile show lists the keys")
    if key == "bell":
        host.options.bell = _seconds(value)
    elif key == "theme":
        theme = next((theme for theme in THEMES if theme == value), None)
        if theme is None:
            raise UsageError(f"there is no theme {value!r}", hint=", ".join(THEMES))
        host.options.look = replace(host.options.look, theme=theme)
    elif key in _SHOWN:
        setattr(host.options, key, switch(key, value))
    elif key in SETTABLE:
        if _key_of(key).kind == "flag":
            value = "true" if switch(key, value) else "false"
        host.session.use(set_value(host.session.profile, key, value, "/set"))
    else:
        known = (*SETTABLE, *_SHOWN)
        hint = meant(key, known, f"known: {', '.join(known)}")
        raise UsageError(f"there is no key `{key}` to set", hint=hint)
    host.say(f"{key} = {value}")


def _seconds(text: str) -> int:
    if text.lower() in NO:
        return 0
    if not text.isdecimal() or not text.isascii() or len(text) > 5:
        raise UsageError(f"bell must be a number of seconds or off, not {text!r}")
    return int(text)
