"""Separates the comparison at the beginning of an answer from the reply that follows it.

The strategy `fusion` with `one_call` asks for answers that begin with a comparison between two
tags. The comparison is passed on as reasoning. The opening tag counts only at the start of the
answer, or at the start of a line soon after it, because some models write a sentence first. Where
an answer mentions the tag later, it stays a part of the text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from moa_cli.core.endpoints import Delta

OPEN: Final = "<comparison>"
CLOSE: Final = "</comparison>"
# The opening tag has to begin within this many characters. If it does not, the answer has no
# comparison.
_FARTHEST: Final = 200


class Opening:
    """Separates the comparison from the reply in all attempts of a call.

    compared: whether the answer of the last attempt had a comparison and a reply after it.
    """

    def __init__(self) -> None:
        self.compared = False

    def attempt(self) -> PartedAnswer:
        """The separator for the next attempt."""
        self.compared = False
        return PartedAnswer(self)


class PartedAnswer:
    """The deltas of one attempt, with its comparison as reasoning.

    It is given the deltas one by one, and does not wrap the endpoint's stream. A caller that stops
    waiting closes the endpoint's stream and all generators around it. If this were one of them, the
    words that it holds back would be lost.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._acts = False
        self._begin()

    def _begin(self) -> None:
        # _opened: the comparison has begun. _closed: it has ended. _replied: a word of the reply
        # was passed on, so everything that follows is text of the reply.
        self._opened = self._closed = self._replied = False
        self._inside = self._held = ""

    @property
    def held(self) -> str:
        """The words that have come, but were not passed on yet. Empty inside a comparison, where
        only a part of the closing tag is held back."""
        return "" if self._opened else self._held

    def feed(self, delta: Delta) -> Delta:
        """The next delta as it is passed on: its text may be held back, or become reasoning."""
        self._acts = self._acts or bool(delta.tool_calls)
        if delta.replaces:
            # This delta holds the whole answer, in place of all that came before.
            self._begin()
        if self._replied or not delta.text:
            return delta
        self._held += delta.text
        text = reasoning = ""
        if not self._opened:
            text = self._look_for_opening()
        if self._opened and not self._closed:
            reasoning = self._look_for_closing()
        if self._closed:
            # The white space between the comparison and the reply belongs to neither.
            text = self._held.lstrip()
            self._held = "" if text else self._held
        self._replied = bool(text)
        return replace(
            delta,
            text=text,
            reasoning=delta.reasoning + reasoning,
            # The probabilities belong to the tokens of the original text.
            token_logprobs=delta.token_logprobs if text == delta.text else (),
        )

    def end(self) -> Delta | None:
        """The last delta to pass on at the end of the answer, or None.

        If nothing follows the comparison, or no tag closes it, the whole answer becomes the reply,
        so that nothing is lost.
        """
        # The whole answer without the tags.
        said = f"{self._inside}{self._held}".strip()
        if self._replied or (self._closed and self._acts):
            self._opening.compared = self._closed
        elif said:
            return Delta(text=said, replaces=self._opened)
        return None

    def _look_for_opening(self) -> str:
        """The text that was held back, once it is clear that the answer has no comparison; "" until
        then."""
        before, tag, rest = self._held.partition(OPEN)
        if tag and len(before) <= _FARTHEST and not before.rpartition("\n")[2].strip():
            self._opened, self._held = True, before.lstrip() + rest.lstrip()
            return ""
        if len(self._held) <= _FARTHEST and not tag:
            return ""
        text, self._held = self._held, ""
        return text

    def _look_for_closing(self) -> str:
        """The words that certainly belong to the comparison. A beginning of the closing tag is held
        back."""
        inside, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._closed, self._held = True, rest
        else:
            kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if inside.endswith(CLOSE[:n])), 0)
            cut = len(inside) - kept
            inside, self._held = inside[:cut], inside[cut:]
        self._inside += inside
        return inside
