"""Answers that open with a comparison between tags, which is told as reasoning.

The strategy `fusion` with `one_call` asks for such answers. The tag is looked for at the start of
the answer, or of a line soon after it: some models write a sentence before it. An answer that
speaks of the tag later keeps its words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from moa_cli.core.endpoints import Delta

OPEN: Final = "<comparison>"
CLOSE: Final = "</comparison>"
# Characters within which the tag begins; longer answers have none.
_FARTHEST: Final = 200


class Opening:
    """Separates the comparison from the reply in all attempts of a call.

    compared: whether the last attempt had a comparison, and a reply after it.
    """

    def __init__(self) -> None:
        self.compared = False

    def attempt(self) -> PartedAnswer:
        """The separator for the next attempt."""
        self.compared = False
        return PartedAnswer(self)


class PartedAnswer:
    """The deltas of one attempt, with its comparison as reasoning.

    It takes the deltas one by one, and does not wrap the endpoint's stream. A caller that stops
    waiting closes every stream around the endpoint's, and would lose the words that are held back.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._acts = False
        self._begin()

    def _begin(self) -> None:
        # Whether a comparison has begun, and has come to its end; and whether a word of the reply
        # was told: then all that comes is text.
        self._opened = self._closed = self._replied = False
        self._inside = self._held = ""

    @property
    def held(self) -> str:
        """The words that have come, but were told neither as text nor as reasoning. Inside a
        comparison this is half a tag, so it is empty."""
        return "" if self._opened else self._held

    def feed(self, delta: Delta) -> Delta:
        """What is told of the next delta."""
        self._acts = self._acts or bool(delta.tool_calls)
        if delta.replaces:
            # What came was not what it seemed; this is the whole answer.
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
            # The white space between the two belongs to neither.
            text = self._held.lstrip()
            self._held = "" if text else self._held
        self._replied = bool(text)
        return replace(
            delta,
            text=text,
            reasoning=delta.reasoning + reasoning,
            # They belong to another text.
            token_logprobs=delta.token_logprobs if text == delta.text else (),
        )

    def end(self) -> Delta | None:
        """What is told at the end of the answer, if anything.

        An answer in which nothing follows the comparison, or no tag closes it, is the reply:
        nothing of it is lost.
        """
        # All of it, without the tags.
        said = f"{self._inside}{self._held}".strip()
        if self._replied or (self._closed and self._acts):
            self._opening.compared = self._closed
        elif said:
            return Delta(text=said, replaces=self._opened)
        return None

    def _look_for_opening(self) -> str:
        """The text, once it is clear that no comparison opens the answer."""
        before, tag, rest = self._held.partition(OPEN)
        if tag and len(before) <= _FARTHEST and not before.rpartition("\n")[2].strip():
            self._opened, self._held = True, before.lstrip() + rest.lstrip()
            return ""
        if len(self._held) <= _FARTHEST and not tag:
            return ""
        text, self._held = self._held, ""
        return text

    def _look_for_closing(self) -> str:
        """The words that certainly belong to the comparison."""
        inside, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._closed, self._held = True, rest
        else:
            kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if inside.endswith(CLOSE[:n])), 0)
            cut = len(inside) - kept
            inside, self._held = inside[:cut], inside[cut:]
        self._inside += inside
        return inside
