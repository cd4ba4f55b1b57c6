"""The registry of slash commands: help, completion, the loop and the documentation use it.

Each module of this package registers its commands when it is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from moa_cli.chat.keeping import SavedConversation
from moa_cli.chat.model_picker import fitting, model_cells, model_names
from moa_cli.chat.outcomes import Outcome
from moa_cli.chat.session import Session
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config
from moa_cli.core.errors import UsageError
from moa_cli.core.files.attaching import Attached
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import nearest
from moa_cli.terminal.sinks import Show
from moa_cli.terminal.transcript import Passage

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(kw_only=True)
class ChatOptions(Show):
    """How a chat is shown and typed. Nothing of it is sent to a model.

    multiline: Enter begins a new line, Alt-Enter sends. vi: edit with vi keys.
    attachments: files that go with the next prompt. keep_files: whether they go with later ones,
    too. confirm_tokens: with more tokens of files than this, the user is asked first; 0 never
    asks. prompts: how many prompts the file of prompts holds at most; 0 for no file. save: whether
    this chat adds to that file.
    """

    multiline: bool = False
    vi: bool = False
    attachments: list[Attached] = field(default_factory=list)
    keep_files: bool = Config.keep_files
    confirm_tokens: int = Config.confirm_tokens
    prompts: int = Config.prompt_history
    save: bool = True


class Host(Protocol):
    """What a command acts on."""

    session: Session
    options: ChatOptions
    kept: SavedConversation
    # None if only the profile's own models are known.
    models: ClientPool | None

    def say(self, text: str) -> None:
        """Show a message, folded at the width of the terminal."""

    def show(self, text: str) -> None:
        """Show a text of a model without folding it."""

    def page(self, passages: Sequence[Passage]) -> None:
        """Show passages of models, drawn and paged where that is possible."""

    def draw(self, drawing: RenderableType) -> None:
        """Show something that Rich draws; it must hold no markup from a model."""

    def clear_screen(self) -> None:
        """Clear the screen."""


class Section(StrEnum):
    """Where a command stands in `/help` and in the documentation, in this order."""

    CHAT = "Chat"
    ASK = "Ask"
    PROPOSALS = "Proposals"
    CONVERSATION = "Conversation"
    MIXTURE = "Mixture"


@dataclass(frozen=True)
class Suggestion:
    """What can stand after a command. text: the whole argument, not its last word alone. about:
    what it means, for the menu."""

    text: str
    about: str = ""


# It takes what was typed after the command's name.
Run = Callable[[Host, str], Outcome]
# The possible arguments of a command: all of them, or a function that takes the argument so far. It
# may suggest arguments that do not fit; they are left out later.
Values = tuple[str | Suggestion, ...] | Callable[[Host, str], Iterable[str | Suggestion]]


@dataclass(frozen=True)
class Command:
    """A slash command.

    run: carries it out. usage: its arguments; brackets mark those that can be left out. values:
    possible arguments, for completion. aliases: other names for it.
    """

    name: str
    run: Run
    section: Section
    usage: str = ""
    values: Values = ()
    aliases: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """The first line of its function's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]

    @property
    def needs_argument(self) -> bool:
        """Whether it does nothing without an argument."""
        return bool(self.usage) and not self.usage.startswith("[")


# Half of the commands have shorter words in their help.
_LEAST_SEARCHED = 3
# Models that are suggested; what is known of each is looked up.
_MOST_MODELS = 100
# Characters of an unknown name that are shown: a paste may be one long word.
_MOST_NAMED = 60
YES, NO = ("on", "true", "yes"), ("off", "false", "no")
COMMANDS: dict[str, Command] = {}
_ALIASES: dict[str, str] = {}


def command(
    name: str,
    usage: str = "",
    values: Values = (),
    *,
    section: Section = Section.CHAT,
    aliases: tuple[str, ...] = (),
) -> Callable[[Run], Run]:
    """Register a function as the slash command `name`; its docstring is the help."""

    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, run, section, usage, values, aliases)
        _ALIASES.update(dict.fromkeys(aliases, name))
        return run

    return register


def find(name: str) -> Command:
    """The command of that name, alias or unique prefix. Raises UsageError that names the nearest
    one."""
    name = _ALIASES.get(name, name)
    if name in COMMANDS:
        return COMMANDS[name]
    begun = [known for known in COMMANDS if name and known.startswith(name)]
    shortest = min(begun, key=len, default="")
    # If all others are longer forms of one, as /files is of /file, that one is meant.
    if begun and all(known.startswith(shortest) for known in begun):
        return COMMANDS[shortest]
    if begun:
        raise UsageError(f"/{name} could be " + ", ".join(f"/{known}" for known in begun))
    alike = [known for known in COMMANDS if name and known.startswith(name[:3])]
    near = nearest(name, [*COMMANDS, *_ALIASES]) or (alike[0] if alike else None)
    hint = f"did you mean /{near}?" if near else "/help lists all commands"
    raise UsageError(f"there is no command /{name}", hint=hint)


def perform(host: Host, line: str) -> Outcome:
    """Carry out a line that begins with a slash. Raises MoAError if that fails."""
    name, argument = _parted(line)
    if begins_with_path(line):
        hint = "begin the line with two slashes to send it as it is"
        if _is_there(f"/{name}"):
            hint += f"; `/file /{name}` attaches it"
        raise UsageError(f"there is no command /{one_line(name, _MOST_NAMED)}", hint=hint)
    found = find(name)
    if found.usage.isalpha() and not argument:
        raise UsageError(f"/{found.name} needs a {found.usage.lower()}")
    if argument and not found.usage:
        told = one_line(argument, _MOST_NAMED)
        raise UsageError(f"/{found.name} takes no argument, and nothing was done: {told}")
    return found.run(host, argument)


def begins_with_path(line: str) -> bool:
    """Whether a line that begins with a slash begins with the path of a file or with code, as a
    pasted one does, and not with a command."""
    name, _ = _parted(line)
    # Nor is a name with such characters one of a command: the first line of code (`/* … */`).
    if not re.fullmatch(r"[\w?-]*", name):
        return True
    try:
        find(name)
    except UsageError:
        # `/tmp` and `/vmlinuz.old` exist, and are no commands.
        return bool(name) and _is_there(f"/{name}")
    return False


def _parted(line: str) -> tuple[str, str]:
    """The name of the command, and what follows it."""
    name, *rest = re.split(r"\s", line[1:], maxsplit=1)
    return name, "".join(rest).strip()


def _is_there(path: str) -> bool:
    # A NUL character, or a name that is too long.
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def complete(line: str, host: Host) -> list[Suggestion]:
    """What can complete the name of a command, or else its argument; each suggestion replaces all
    of that.

    Values that begin with what was typed come before those that hold it elsewhere: users rarely
    know how the id of a model begins. If there are none, the search goes on in the meanings of the
    values.
    """
    name, space, argument = line[1:].partition(" ")
    if not space:
        return _names(name)
    try:
        chosen = find(name)
    except UsageError:
        return []
    argument = re.sub(" +", " ", argument.lstrip())
    values = chosen.values(host, argument) if callable(chosen.values) else chosen.values
    found = [value if isinstance(value, Suggestion) else Suggestion(value) for value in values]
    typed = argument.lower()
    begun = [value for value in found if value.text.lower().startswith(typed)]
    start = _last_word(typed)
    before, word = typed[:start], typed[start:]
    held = [
        value
        for value in found
        if value.text.lower().startswith(before)
        and word in value.text.lower()[start:]
        and not value.text.lower().startswith(typed)
    ]
    # Conversations are known by their titles, not by their ids.
    return [*begun, *held] or [value for value in found if word and word in value.about.lower()]


def _last_word(argument: str) -> int:
    """Where the last word of an argument begins; commas part words, too."""
    return max(argument.rfind(" "), argument.rfind(",")) + 1


def _names(typed: str) -> list[Suggestion]:
    """The commands whose names or aliases begin so; if there are none, those whose name or help
    holds it."""
    found = {known: known for known in COMMANDS if known.startswith(typed)}
    known_so_far = set(found.values())
    for alias, known in _ALIASES.items():
        if typed and alias.startswith(typed) and known not in known_so_far:
            found[alias] = known
    if not found and len(typed) >= _LEAST_SEARCHED:
        word = typed.lower()
        found = {
            known.name: known.name
            for known in COMMANDS.values()
            if word in known.name or word in known.help.lower()
        }
    return [Suggestion(f"/{name}", COMMANDS[found[name]].help) for name in sorted(found)]


def model_words(host: Host, typed: str) -> list[Suggestion]:
    """The models of the profile and of providers' lists, for completion of the last name."""
    start = _last_word(typed)
    listed = host.models.listed() if host.models else {}
    names = fitting(model_names(host.session.profile, listed), typed[start:])
    found = []
    for name in names[:_MOST_MODELS]:
        info = host.models.known(name) if host.models else None
        about = ""
        if info is not None and (info.price or info.context_length):
            context, sent, written = model_cells(info)
            about = f"context {context}, ${sent} in, ${written} out"
        found.append(Suggestion(typed[:start] + name, about))
    return found


def switched(name: str, now: bool, argument: str) -> bool:
    """What `name` is set to by on or off; without either it changes. Raises UsageError."""
    return switch(name, argument) if argument else not now


def switch(name: str, text: str) -> bool:
    """Whether `text` is on or off. Raises UsageError if it is neither."""
    if text.lower() not in (*YES, *NO):
        raise UsageError(f"{name} must be on or off, not {text!r}")
    return text.lower() in YES


def whole(text: str) -> int:
    """The whole number in `text`. Raises UsageError if there is none."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None
