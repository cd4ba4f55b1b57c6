"""What a line of a chat asks for: each command and each prompt comes to one of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moa_cli.core.conversation import Part
from moa_cli.core.strategy import Strategy


class _Asked:
    """What remains to do after a line is carried out."""


Outcome = _Asked | None


@dataclass(frozen=True)
class Leave(_Asked):
    """End the program."""


@dataclass(frozen=True)
class Send(_Asked):
    """Ask this prompt now. aggregator: the model that writes only this reply, if given. parts: all
    parts of the prompt, if there are others than text. again: whether it was asked before."""

    prompt: str
    aggregator: str | None = None
    parts: tuple[Part, ...] = ()
    again: bool = False


@dataclass(frozen=True)
class Remerge(_Asked):
    """Write a new reply from the last turn's proposals. strategy, aggregator: other ones than the
    profile's, for this reply alone."""

    strategy: Strategy | None = None
    aggregator: str | None = None


@dataclass(frozen=True)
class MakeReport(_Asked):
    """Report where the last turn's proposals disagree."""


@dataclass(frozen=True)
class Edit(_Asked):
    """Open the user's editor on this text; what they save is put into the next line. summary: it
    takes the place of the summary instead."""

    text: str
    summary: bool = False


@dataclass(frozen=True)
class TypeAgain(_Asked):
    """Put this text into the next line, where the user can change or send it."""

    text: str


@dataclass(frozen=True)
class ChooseModels(_Asked):
    """Let the user choose models from a list. typed: what narrows it at first."""

    typed: str


@dataclass(frozen=True)
class EditMessage(_Asked):
    """Put the message of that number, counted from 1, into the next line. What is sent then takes
    its place in a copy of the conversation."""

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

    text: the question. yes, no: what then follows. hint: how to say yes if no question can be
    asked.
    """

    text: str
    yes: Callable[[], Outcome]
    no: Callable[[], Outcome]
    hint: str
