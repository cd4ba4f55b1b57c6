"""Answers that open with a comparison between tags, which is told as reasoning.

The strategy `fusion` with `one_call` asks for such answers. The tag is looked for at the start of
the answer, or of a line not far behind it: some models write a sentence before it. An answer that
speaks of the tag later keeps its words.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from moa_cli.core.endpoints import Delta

OPEN: Final = "<comparison>"
CLOSE: Final = "</comparison>"
# Characters within which the tag begins; longer answers have none.
_FARTHEST: Final = 200


class Opening:
    """Parts the comparison from the reply in all attempts of a call.

    compared: whether the last attempt had a comparison, and a reply behind it.
    """

    def __init__(self) -> None:
        self.compared = False

    async def part(self, stream: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """The deltas of an attempt, with its comparison as reasoning.

        An answer in which nothing follows the comparison, or no tag closes it, is told as the reply
        at its end: nothing of it is lost.
        """
        self.compared = False
        splitter = _Splitter()
        acts = False
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                acts = acts or bool(delta.tool_calls)
                if delta.replaces:
                    # What came was not what it seemed; this is the whole answer.
                    splitter = _Splitter()
                    yield splitter.whole(delta)
                elif splitter.replied or not delta.text:
                    yield delta
                else:
                    yield splitter.feed(delta)
        if splitter.replied or (splitter.closed and acts):
            self.compared = splitter.closed
        elif splitter.said:
            yield Delta(text=splitter.said, replaces=splitter.opened)


class _Splitter:
    """Parts one answer.

    opened, closed: whether a comparison has begun, and has come to its end. replied: whether a word
    of the reply was told; then all that comes is text.
    """

    def __init__(self) -> None:
        self.opened = self.closed = self.replied = False
        self._inside = self._held = ""

    @property
    def said(self) -> str:
        """What has come of the answer without the tags, as long as no word of a reply was told."""
        return f"{self._inside}{self._held}".strip()

    def whole(self, delta: Delta) -> Delta:
        """The same of an answer that comes in one piece."""
        parted = self.feed(replace(delta, reasoning=""))
        return replace(parted, reasoning=delta.reasoning + parted.reasoning)

    def feed(self, delta: Delta) -> Delta:
        """What is told of the next piece."""
        self._held += delta.text
        text = reasoning = ""
        if not self.opened:
            text = self._look_for_opening()
        if self.opened and not self.closed:
            reasoning = self._look_for_closing()
        if self.closed:
            # The white space between the two belongs to neither.
            text = self._held.lstrip()
            self._held = "" if text else self._held
        self.replied = bool(text)
        return replace(
            delta,
            text=text,
            reasoning=delta.reasoning + reasoning,
            # They would tell of another text.
            token_logprobs=delta.token_logprobs if text == delta.text else (),
        )

    def _look_for_opening(self) -> str:
        """Text, once it is known that no comparison opens the answer."""
        before, tag, rest = self._held.partition(OPEN)
        if tag and len(before) <= _FARTHEST and not before.rpartition("\n")[2].strip():
            self.opened, self._held = True, before.lstrip() + rest.lstrip()
            return ""
        if len(self._held) <= _FARTHEST and not tag:
            return ""
        text, self._held = self._held, ""
        return text

    def _look_for_closing(self) -> str:
        """What is known to be of the comparison."""
        inside, tag, rest = self._held.partition(CLOSE)
        if tag:
            self.closed, self._held = True, rest
        else:
            kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if inside.endswith(CLOSE[:n])), 0)
            cut = len(inside) - kept
            inside, self._held = inside[:cut], inside[cut:]
        self._inside += inside
        return inside
