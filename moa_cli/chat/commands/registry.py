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
    """The options of a chat's display and input. Models do not get them.

    multiline: Enter begins a new line, Alt-Enter sends. vi: edit with vi keys. attachments: files
    that go with the next prompt. keep_files: whether attached files go with later prompts, too.
    confirm_tokens: if files have more tokens than this, the user is asked first; 0 never asks.
    prompts: the most prompts in the file of prompts; 0 for no file. save: whether this chat adds to
    that file.
    """

    multiline: bool = False
    vi: bool = False
    attachments: list[Attached] = field(default_factory=list)
    keep_files: bool = Config.keep_files
    confirm_tokens: int = Config.confirm_tokens
    prompts: int = Config.prompt_history
    save: bool = True


class Host(Protocol):
    """The chat, as slash commands see it."""

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
        """Show something that Rich draws. It must contain no markup from a model."""

    def clear_screen(self) -> None:
        """Clear the screen."""


class Section(StrEnum):
    """The sections of commands in `/help` and in the documentation, in this order."""

    CHAT = "Chat"
    ASK = "Ask"
    PROPOSALS = "Proposals"
    CONVERSATION = "Conversation"
    MIXTURE = "Mixture"


@dataclass(frozen=True)
class Suggestion:
    """A suggestion for the argument of a command. text: the whole argument, not only its last word.
    about: its meaning, for the menu."""

    text: str
    about: str = ""


# The function of a command. It is given the text after the command's name.
Run = Callable[[Host, str], Outcome]
# The possible arguments of a command: all of them, or a function that is given the argument so far.
# The function may return arguments that do not match; they are left out later.
Values = tuple[str | Suggestion, ...] | Callable[[Host, str], Iterable[str | Suggestion]]


@dataclass(frozen=True)
class Command:
    """A slash command.

    run: the function that executes it. usage: its arguments; those in brackets are optional.
    values: possible arguments, for completion. aliases: other names for it.
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


# With fewer letters, the help texts are not searched, because half of the commands would match.
_LEAST_SEARCHED = 3
# The most models that are suggested, because the facts about each one are looked up.
_MOST_MODELS = 100
# An error shows this many characters of an unknown name, because a paste may be one long word.
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
    """The command with that name, alias or unique prefix. Raises UsageError, which names the
    nearest command, if there is none."""
    name = _ALIASES.get(name, name)
    if name in COMMANDS:
        return COMMANDS[name]
    begun = [known for known in COMMANDS if name and known.startswith(name)]
    shortest = min(begun, key=len, default="")
    # If all other matches begin with the shortest one, as /files begins with /file, the shortest is
    # meant.
    if begun and all(known.startswith(shortest) for known in begun):
        return COMMANDS[shortest]
    if begun:
        raise UsageError(f"/{name} could be " + ", ".join(f"/{known}" for known in begun))
    alike = [known for known in COMMANDS if name and known.startswith(name[:3])]
    near = nearest(name, [*COMMANDS, *_ALIASES]) or (alike[0] if alike else None)
    hint = f"did you mean /{near}?" if near else "/help lists all commands"
    raise UsageError(f"there is no command /{name}", hint=hint)


def perform(host: Host, line: str) -> Outcome:
    """Execute a line that begins with a slash. Raises MoAError if that fails."""
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
    """Whether a line with a slash at its beginning begins with the path of a file or with code,
    such as pasted text, and not with a command."""
    name, _ = _parted(line)
    # The name of a command has only these characters. A path, or code (`/* … */`), has others.
    if not re.fullmatch(r"[\w?-]*", name):
        return True
    try:
        find(name)
    except UsageError:
        # For example, `/tmp` and `/vmlinuz.old` exist, and are no commands.
        return bool(name) and _is_there(f"/{name}")
    return False


def _parted(line: str) -> tuple[str, str]:
    """The name of the command, and the text after it."""
    name, *rest = re.split(r"\s", line[1:], maxsplit=1)
    return name, "".join(rest).strip()


def _is_there(path: str) -> bool:
    # The path may have a NUL character, or a name that is too long.
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def complete(line: str, host: Host) -> list[Suggestion]:
    """The suggestions that complete the name of a command, or its argument. Each suggestion
    replaces the whole name or argument.

    Values that begin with the typed text come first. Then come values that contain its last word
    elsewhere, because users rarely know how the id of a model begins. If there are none, the
    meanings of the values are searched.
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
    # The meanings are searched because users know conversations by their titles, not by their ids.
    return [*begun, *held] or [value for value in found if word and word in value.about.lower()]


def _last_word(argument: str) -> int:
    """The place where the last word of an argument begins. Commas also separate words."""
    return max(argument.rfind(" "), argument.rfind(",")) + 1


def _names(typed: str) -> list[Suggestion]:
    """The commands whose names or aliases begin with the typed text. If there are none, the
    commands whose name or help contains it."""
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
    """The new value of the switch `name`. Without an argument, its present value is inverted.
    Raises UsageError if the argument is neither on nor off."""
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
