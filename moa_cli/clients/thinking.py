"""Reasoning that an endpoint leaves in the text of its answer."""

from __future__ import annotations

from moa_cli.core.endpoints import Delta

# So much white space before reasoning or an answer is none of either: a model that writes nothing
# else must be seen to go on.
_MOST_BLANKS = 256


class ThinkSplitter:
    """Parts a leading `<think>…</think>` of a streamed answer from its text.

    Only at the very start: an answer that speaks of the tag later keeps its words.
    """

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    @property
    def passing(self) -> bool:
        """Whether all that comes is text."""
        return self._state == "text"

    def feed(self, text: str) -> Delta:
        """The text and the reasoning in the next piece, as far as it can be told."""
        if self._state == "text" or not text:
            return Delta(text=text)
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(self._OPEN):
                self._state, self._held = "thinking", begun[len(self._OPEN) :]
            elif self._OPEN.startswith(begun) and len(self._held) <= _MOST_BLANKS:
                return Delta()
            else:
                return self._release("text")
        if self._state == "after":
            return self._after()
        return self._think()

    def _think(self) -> Delta:
        reasoning, closing, rest = self._held.partition(self._CLOSE)
        if closing:
            self._state, self._held = "after", rest
            return Delta(text=self._after().text, reasoning=reasoning)
        keep = next(
            (n for n in range(len(self._CLOSE) - 1, 0, -1) if reasoning.endswith(self._CLOSE[:n])),
            0,
        )
        cut = len(reasoning) - keep
        self._held = reasoning[cut:]
        return Delta(reasoning=reasoning[:cut])

    def _after(self) -> Delta:
        # The white space between the reasoning and the answer belongs to neither.
        begun = self._held.lstrip()
        if not begun and len(self._held) <= _MOST_BLANKS:
            return Delta()
        self._held = begun or self._held
        return self._release("text")

    def _release(self, state: str) -> Delta:
        text, self._held, self._state = self._held, "", state
        return Delta(text=text)

    def flush(self) -> Delta:
        """What was held back, at the end of the answer."""
        state, held, self._held = self._state, self._held, ""
        if state == "after":
            return Delta()
        return Delta(reasoning=held) if state == "thinking" else Delta(text=held)
