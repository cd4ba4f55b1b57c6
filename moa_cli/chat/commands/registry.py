"""The registry of slash commands: help, completion, the loop and the documentation use it.

Each module of this package registers its commands when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from moa_cli.chat.keeping import SavedConversation
from moa_cli.chat.session import Session
from moa_cli.config.schema import Config
from moa_cli.core.conversation import Part
from moa_cli.core.errors import UsageError
from moa_cli.core.strategy import Strategy
from moa_cli.core.text import nearest
from moa_cli.terminal.sinks import Show

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(kw_only=True)
class ChatOptions(Show):
    """How a chat is shown and typed. Nothing of it is sent to a model.

    multiline: Enter begins a new line, Alt-Enter sends. vi: edit with the keys of vi.
    attachments: files that go with the next prompt. prompts: how many prompts the file of prompts
    holds at most; 0 for no file. save: whether this chat adds to that file.
    """

    multiline: bool = False
    vi: bool = False
    attachments: list[Part] = field(default_factory=list)
    prompts: int = Config.prompt_history
    save: bool = True


@dataclass(frozen=True)
class Leave:
    """End the program."""


@dataclass(frozen=True)
class Send:
    """Ask this prompt now. aggregator: the model that writes only this reply, if given. parts: all
    parts of the prompt, if there are others than text."""

    prompt: str
    aggregator: str | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Remerge:
    """Write a new reply from the last turn's proposals. strategy, aggregator: other ones than the
    profile's, for this reply alone."""

    strategy: Strategy | None = None
    aggregator: str | None = None


@dataclass(frozen=True)
class MakeReport:
    """Report where the last turn's proposals disagree."""


@dataclass(frozen=True)
class Edit:
    """Open the user's editor on this text; what they save is put into the next line."""

    text: str


@dataclass(frozen=True)
class Resume:
    """Continue the conversation whose id begins with `prefix`; "" lets the user choose."""

    prefix: str


Outcome = Leave | Send | Remerge | MakeReport | Edit | Resume | None


class Host(Protocol):
    """What a command acts on."""

    session: Session
    options: ChatOptions
    kept: SavedConversation

    def say(self, text: str) -> None:
        """Show a message, folded at the width of the terminal."""

    def show(self, text: str) -> None:
        """Show a text of a model without folding it."""

    def draw(self, drawing: RenderableType) -> None:
        """Show something that Rich draws; it must hold no markup from a model."""

    def clear_screen(self) -> None:
        """Clear the screen."""


# Takes what was typed after the command's name.
Run = Callable[[Host, str], Outcome]
Values = Callable[[Session], Iterable[str]]


@dataclass(frozen=True)
class Command:
    """A slash command.

    run: carries it out. usage: its arguments; brackets mark those that can be left out. values:
    possible arguments, for completion.
    """

    name: str
    run: Run
    usage: str
    values: Values

    @property
    def help(self) -> str:
        """The first line of its function's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {}


def command(
    name: str, usage: str = "", values: Values = lambda session: ()
) -> Callable[[Run], Run]:
    """Register a function as the slash command `name`; its docstring is the help."""

    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, run, usage, values)
        return run

    return register


def find(name: str) -> Command:
    """The command of that name or unique prefix. Raises UsageError that names the nearest one."""
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
    """Carry out a line that begins with a slash. Raises MoAError if that fails."""
    name, _, argument = line[1:].partition(" ")
    found, argument = find(name.strip()), argument.strip()
    if found.usage.isalpha() and not argument:
        raise UsageError(f"/{found.name} needs a {found.usage.lower()}")
    return found.run(host, argument)


def complete(line: str, session: Session) -> list[str]:
    """The words that can complete the last word of a line."""
    name, space, argument = line[1:].partition(" ")
    if not space:
        return sorted(f"/{known}" for known in COMMANDS if known.startswith(name))
    try:
        chosen = find(name)
    except UsageError:
        return []
    return [value for value in chosen.values(session) if value.startswith(argument)]


def model_words(session: Session) -> Iterable[str]:
    """The models of the profile, for completion."""
    return session.profile.models()


def whole(text: str) -> int:
    """The whole number in `text`. Raises UsageError if there is none."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None
