"""The registry of slash commands, read by help, completion, the loop and the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from moa_cli.chat.keeping import Kept
from moa_cli.chat.options import ChatOptions
from moa_cli.chat.session import Session
from moa_cli.core.errors import UsageError
from moa_cli.core.text import nearest

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Leave:
    """End the program."""


@dataclass(frozen=True)
class Send:
    """Ask this prompt now; `aggregator` writes this one reply, if given."""

    prompt: str
    aggregator: str | None = None


@dataclass(frozen=True)
class Remerge:
    """Write a new reply from the last turn's proposals."""

    aggregator: str | None = None


@dataclass(frozen=True)
class Edit:
    """Open the user's editor on this text; what is saved becomes the next line's start."""

    text: str


@dataclass(frozen=True)
class Resume:
    """Go on with the conversation whose id begins so; "" lets the user choose."""

    prefix: str


Outcome = Leave | Send | Remerge | Edit | Resume | None


class Host(Protocol):
    """What a command acts on."""

    session: Session
    options: ChatOptions
    kept: Kept

    def say(self, text: str) -> None:
        """Show words of ours, folded at the width of the terminal."""

    def show(self, text: str) -> None:
        """Show a model's words as they are."""

    def draw(self, drawing: RenderableType) -> None:
        """Show something that Rich draws; it must hold no markup of a model's."""

    def clear_screen(self) -> None:
        """Begin with an empty screen."""


Run = Callable[[Host, str], Outcome]
Values = Callable[[Session], Iterable[str]]


@dataclass(frozen=True)
class Command:
    """A slash command. usage: its argument in words; a single one that cannot be left out
    stands without brackets.

    values: what its argument may be, for completion.
    """

    name: str
    run: Run
    usage: str = ""
    values: Values = field(default=lambda session: ())

    @property
    def help(self) -> str:
        """One line: the first of its function's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {}


def command(name: str, usage: str = "", values: Values | None = None) -> Callable[[Run], Run]:
    """Register a function as the slash command `name`; its docstring is the help."""

    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, run, usage, values or (lambda session: ()))
        return run

    return register


def find(name: str) -> Command:
    """The command of that name or unique prefix. Raises UsageError with the nearest name."""
    if name in COMMANDS:
        return COMMANDS[name]
    begun = [known for known in COMMANDS if name and known.startswith(name)]
    if len(begun) == 1:
        return COMMANDS[begun[0]]
    if begun:
        raise UsageError(f"/{name} could be " + ", ".join(f"/{known}" for known in begun))
    alike = [known for known in COMMANDS if name and known.startswith(name[:3])]
    near = nearest(name, COMMANDS) or (alike[0] if alike else None)
    hint = f"did you mean /{near}?" if near else "/help lists all commands"
    raise UsageError(f"there is no command /{name}", hint=hint)


def perform(host: Host, line: str) -> Outcome:
    """Carry out a line that begins with a slash. Raises MoAError if it cannot be done."""
    name, _, argument = line[1:].partition(" ")
    found, argument = find(name.strip()), argument.strip()
    if found.usage.isalpha() and not argument:
        raise UsageError(f"/{found.name} needs a {found.usage.lower()}")
    return found.run(host, argument)


def complete(line: str, session: Session) -> list[str]:
    """The words that could stand where the line's last one is being typed."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        return sorted(f"/{known}" for known in COMMANDS if known.startswith(name))
    try:
        chosen = find(name)
    except UsageError:
        return []
    return [value for value in chosen.values(session) if value.startswith(argument)]


def whole(text: str) -> int:
    """The whole number in `text`. Raises UsageError if it is none."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None
