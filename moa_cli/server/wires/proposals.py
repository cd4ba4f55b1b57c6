"""Proposals that come side by side, told one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from moa_cli.core.conversation import Proposal
from moa_cli.core.events import (
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
)

__all__ = ["Proposals", "proposal_text"]


def proposal_text(one: Proposal) -> str:
    """A proposal that has ended."""
    return f"{_heading(one.proposer, one.layer)}{one.text}{_why_lost(one)}\n\n"


def _heading(name: str, layer: int) -> str:
    return f"### {name} (round {layer})\n\n"


def _why_lost(one: Proposal) -> str:
    if one.error is None:
        return ""
    above = "\n\n" if one.text else ""
    return f"{above}({one.error.message})"


@dataclass
class _Told:
    name: str
    held: list[str] = field(default_factory=list)
    ended: bool = False


class Proposals:
    """The text of a turn's proposals as it grows: the one that speaks first is told as it comes,
    the others are held back until it has ended, and told in the order in which they began."""

    def __init__(self) -> None:
        self._layer = 0
        self._names: tuple[str, ...] = ()
        # By index, in the order in which they began to speak.
        self._waiting: dict[int, _Told] = {}
        self._live: int | None = None

    def take(self, event: Event) -> str:
        """Take the next event; returns what can be told now."""
        match event:
            case LayerStarted():
                self._layer = event.layer
                self._names = tuple(one.name for one in event.proposers)
                self._waiting, self._live = {}, None
            case ProposerDelta() if event.text:
                return self._say(event.index, event.text)
            case ProposerFinished():
                return self._end(event.index)
            case ProposerFailed():
                return self._say(event.index, _why_lost(event.proposal)) + self._end(event.index)
            case LayerFinished():
                return self._next()
        return ""

    def _say(self, index: int, text: str) -> str:
        one = self._waiting.get(index)
        if one is None:
            one = self._waiting[index] = _Told(self._names[index])
        if index == self._live:
            return text
        one.held.append(text)
        return "" if self._live is not None else self._next()

    def _end(self, index: int) -> str:
        if index in self._waiting:
            self._waiting[index].ended = True
        if index != self._live:
            return ""
        del self._waiting[index]
        self._live = None
        return "\n\n" + self._next()

    def _next(self) -> str:
        """What was held back by those that have their turn now."""
        told = []
        for index, one in list(self._waiting.items()):
            told.append(_heading(one.name, self._layer) + "".join(one.held))
            one.held = []
            if not one.ended:
                self._live = index
                break
            told.append("\n\n")
            del self._waiting[index]
        return "".join(told)
