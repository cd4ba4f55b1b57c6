"""The outcomes of a line of a chat. Each command and each prompt results in one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moa_cli.core.conversation import Part
from moa_cli.core.strategy import Strategy


class _Asked:
    """The base of all outcomes: a task that remains after a line was read."""


Outcome = _Asked | None


@dataclass(frozen=True)
class Leave(_Asked):
    """End the program."""


@dataclass(frozen=True)
class Send(_Asked):
    """Send this prompt now. aggregator: a model that writes only this reply, or None. parts: all
    parts of the prompt, if not all of them are text. again: whether it was sent before."""

    prompt: str
    aggregator: str | None = None
    parts: tuple[Part, ...] = ()
    again: bool = False


@dataclass(frozen=True)
class Remerge(_Asked):
    """Write a new reply from the last turn's proposals. strategy, aggregator: for this reply alone;
    None takes the profile's."""

    strategy: Strategy | None = None
    aggregator: str | None = None


@dataclass(frozen=True)
class MakeReport(_Asked):
    """Report where the last turn's proposals disagree."""


@dataclass(frozen=True)
class Edit(_Asked):
    """Open the user's editor on this text. The saved text is put into the next line. summary: if
    true, it replaces the summary instead."""

    text: str
    summary: bool = False


@dataclass(frozen=True)
class TypeAgain(_Asked):
    """Put this text into the next line, where the user can change or send it."""

    text: str


@dataclass(frozen=True)
class ChooseModels(_Asked):
    """Let the user choose models from a list. typed: the words that the list is filtered by at
    first."""

    typed: str


@dataclass(frozen=True)
class EditMessage(_Asked):
    """Put the message with that number, from 1, into the next line. The text that is sent then
    replaces the message in a copy of the conversation."""

    number: int


@dataclass(frozen=True)
class Resume(_Asked):
    """Continue the conversation whose id begins with `prefix`; "" lets the user choose."""

    prefix: str


@dataclass(frozen=True)
class SumUp(_Asked):
    """Sum up the turns before the last one. focus: what the summary is to keep in particular."""

    focus: str


@dataclass(frozen=True)
class Question(_Asked):
    """Ask the user something before going on.

    text: the question. yes, no: return the outcome of the answer. hint: how to say yes in the
    command itself, if no question can be asked.
    """

    text: str
    yes: Callable[[], Outcome]
    no: Callable[[], Outcome]
    hint: str
