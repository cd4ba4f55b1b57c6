"""The slash commands: one registry, read by help, completion and the loop."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from moa_cli.chat.session import Session
from moa_cli.errors import ProfileError, UsageError
from moa_cli.profile import Overrides, list_profiles, resolve, rows, save
from moa_cli.render.plain import setting_text
from moa_cli.render.sanitize import one_line
from moa_cli.tables import nearest

__all__ = ["COMMANDS", "Command", "Host", "Leave", "Outcome", "Send", "complete", "perform"]


@dataclass(frozen=True)
class Leave:
    """End the program."""


@dataclass(frozen=True)
class Send:
    """Ask this prompt now."""

    prompt: str


Outcome = Leave | Send | None


class Host(Protocol):
    """What a command acts on."""

    session: Session

    def say(self, text: str) -> None:
        """Show `text` to the user; it may hold model output."""


Run = Callable[[Host, str], Outcome]
Values = Callable[[Session], Iterable[str]]


@dataclass(frozen=True)
class Command:
    """A slash command. usage: its argument in words. help: one line.

    values: what its argument may be, for completion.
    """

    name: str
    run: Run
    usage: str = ""
    values: Values = field(default=lambda session: ())

    @property
    def help(self) -> str:
        """The first line of its function's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {}


def _command(name: str, usage: str = "", values: Values | None = None) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, run, usage, values or (lambda session: ()))
        return run

    return register


def find(name: str) -> Command:
    """The command of that name or unique prefix. Raises UsageError with the nearest name."""
    if name in COMMANDS:
        return COMMANDS[name]
    begun = [one for one in COMMANDS if name and one.startswith(name)]
    if len(begun) == 1:
        return COMMANDS[begun[0]]
    if begun:
        raise UsageError(f"/{name} could be " + ", ".join(f"/{one}" for one in begun))
    alike = [one for one in COMMANDS if name and one.startswith(name[:3])]
    near = nearest(name, COMMANDS) or (alike[0] if alike else None)
    hint = f"did you mean /{near}?" if near else "/help lists all commands"
    raise UsageError(f"there is no command /{name}", hint=hint)


def perform(host: Host, line: str) -> Outcome:
    """Carry out a line that begins with a slash. Raises MoAError if it cannot be done."""
    name, _, argument = line[1:].partition(" ")
    return find(name.strip()).run(host, argument.strip())


def complete(line: str, session: Session) -> list[str]:
    """The words that could stand where the line's last one is being typed."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        return sorted(f"/{one}" for one in COMMANDS if one.startswith(name))
    try:
        command = find(name)
    except UsageError:
        return []
    return [one for one in command.values(session) if one.startswith(argument)]


def _profile_words(session: Session) -> list[str]:
    return ["list", "show", "save ", *(one.name for one in list_profiles())]


def _model_words(session: Session) -> list[str]:
    return list(session.profile.models())


def _numbers(session: Session) -> list[str]:
    return [str(number) for number in range(1, len(session.proposals()) + 1)]


@_command("help", "[COMMAND]", lambda session: COMMANDS)
def _help(host: Host, argument: str) -> Outcome:
    """List the commands, or explain one."""
    chosen = [find(argument.lstrip("/"))] if argument else list(COMMANDS.values())
    heads = [f"/{one.name} {one.usage}".rstrip() for one in chosen]
    indent = " " * (max(map(len, heads)) + 2)
    columns = shutil.get_terminal_size().columns
    if columns < len(indent) + 30:
        heads, indent = [f"{head}\n" for head in heads], "    "
    for head, one in zip(heads, chosen, strict=True):
        lines = textwrap.wrap(one.help, max(20, columns - len(indent)))
        text = textwrap.indent("\n".join(lines), indent)
        host.say(head + (text if head.endswith("\n") else text[len(head) :]))
    if not argument:
        host.say(
            "\nEnter sends, Alt-Enter begins a new line. Ctrl-C ends a turn, Ctrl-D leaves.\n"
            "A command may be shortened; // sends a text that begins with a slash."
        )
    return None


@_command("exit")
def _exit(host: Host, argument: str) -> Outcome:
    """Leave."""
    return Leave()


@_command("clear")
def _clear(host: Host, argument: str) -> Outcome:
    """Forget the conversation so far."""
    host.session.clear()
    host.say("a new conversation")
    return None


@_command("profile", "[NAME | list | show | save NAME]", _profile_words)
def _profile(host: Host, argument: str) -> Outcome:
    """Switch to a profile, list them, show or save the settings in force."""
    word, _, rest = argument.partition(" ")
    session = host.session
    if word == "list":
        host.say("\n".join(f"{one.name}  ({one.source})" for one in list_profiles()))
    elif word == "show" or not word:
        host.say(_settings(session))
    elif word == "save":
        if not rest.strip():
            raise UsageError("/profile save needs a name")
        host.say(f"saved: {save(session.profile, rest.strip())}")
    else:
        session.profile = resolve(argument, environment=os.environ)
        host.say(f"profile {session.profile.name}: {session.profile.description}")
    return None


def _settings(session: Session) -> str:
    found = rows(session.profile)
    width = max(len(path) for path, _, _ in found)
    lines = [f"{path:<{width}}  {setting_text(value)}  ({origin})" for path, value, origin in found]
    return "\n".join([f"profile {session.profile.name}", *lines])


@_command("aggregator", "[MODEL]", _model_words)
def _aggregator(host: Host, argument: str) -> Outcome:
    """Show or set the model that writes the reply."""
    if argument:
        host.session.change(Overrides(aggregator=argument), "/aggregator")
    host.say(f"aggregator {host.session.profile.aggregator.model}")
    return None


@_command("models", "[MODEL,MODEL…]", _model_words)
def _models(host: Host, argument: str) -> Outcome:
    """Show the models, or set the proposers."""
    if argument:
        names = tuple(name for name in argument.replace(",", " ").split() if name)
        host.session.change(Overrides(reference_models=names), "/models")
    profile = host.session.profile
    lines = [
        f"round {number}: " + ", ".join(one.model for one in profile.layer(number))
        for number in range(1, profile.rounds + 1)
    ]
    host.say("\n".join([*lines, f"aggregator: {profile.aggregator.model}"]))
    return None


@_command("rounds", "[N]", lambda session: ["0", "1", "2", "3"])
def _rounds(host: Host, argument: str) -> Outcome:
    """Show or set the layers of proposers; 0 asks the aggregator alone."""
    if argument:
        host.session.change(Overrides(rounds=_whole(argument)), "/rounds")
    host.say(f"rounds {host.session.profile.rounds}")
    return None


@_command("temperature", "[T]", lambda session: ["0", "0.3", "0.7", "1"])
def _temperature(host: Host, argument: str) -> Outcome:
    """Show or set the temperature of all models."""
    if argument:
        host.session.change(Overrides(temperature=_number(argument)), "/temperature")
    host.say(f"temperature {_or_unset(host.session.profile.temperature)}")
    return None


@_command("max-tokens", "[N]", lambda session: ["256", "512", "1024", "2048", "4096"])
def _max_tokens(host: Host, argument: str) -> Outcome:
    """Show or set the most tokens of each answer."""
    if argument:
        host.session.change(Overrides(max_tokens=_whole(argument)), "/max-tokens")
    host.say(f"max-tokens {_or_unset(host.session.profile.max_tokens)}")
    return None


@_command("multi-turn", "[on | off]", lambda session: ["on", "off"])
def _multi_turn(host: Host, argument: str) -> Outcome:
    """Show or set whether earlier turns are sent along."""
    if argument:
        if argument not in ("on", "off"):
            raise UsageError(f"multi-turn is on or off, not {argument!r}")
        host.session.change(Overrides(multi_turn=argument == "on"), "/multi-turn")
    host.say(f"multi-turn {'on' if host.session.profile.multi_turn else 'off'}")
    return None


@_command("system", "[TEXT | none]", lambda session: ["none"])
def _system(host: Host, argument: str) -> Outcome:
    """Show or set the system prompt of all models."""
    if argument:
        text = "" if argument == "none" else argument
        host.session.change(Overrides(system=text), "/system")
    host.say(f"system {host.session.profile.system or 'not set'}")
    return None


@_command("show", "[N]", _numbers)
def _show(host: Host, argument: str) -> Outcome:
    """List the last turn's proposals, or print one in full."""
    proposals = host.session.proposals()
    if not proposals:
        raise UsageError("there are no proposals yet")
    if not argument:
        for number, one in enumerate(proposals, 1):
            state = one.error.message if one.error else f"{len(one.text)} characters"
            host.say(f"{number}  round {one.layer}  {one.proposer}  {state}")
        return None
    number = _whole(argument)
    if not 1 <= number <= len(proposals):
        raise UsageError(f"there is no proposal {number}", hint=f"1 to {len(proposals)}")
    chosen = proposals[number - 1]
    host.say(f"{chosen.proposer} (round {chosen.layer})\n")
    host.say(chosen.text or (chosen.error.message if chosen.error else ""))
    return None


@_command("retry")
def _retry(host: Host, argument: str) -> Outcome:
    """Ask the last prompt again."""
    return Send(host.session.take_back())


@_command("undo")
def _undo(host: Host, argument: str) -> Outcome:
    """Forget the last turn."""
    turn = host.session.undo()
    host.say(f"forgot: {one_line(turn.user, 60)}")
    return None


def _or_unset(value: object) -> object:
    return "not set" if value is None else value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProfileError(f"{text!r} is not a number") from None
