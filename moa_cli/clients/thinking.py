"""Separates reasoning that an endpoint leaves in the text of its answer.

Most models open their reasoning with a tag, which `ThinkSplitter` finds while the answer arrives.
Some chat templates write the opening tag into the prompt (DeepSeek-R1 and its distilled models,
Qwen3-Thinking, behind vLLM, SGLang or llama.cpp). Then the answer holds only the closing tag, and
only this tag shows that the text before it was reasoning. An answer may also mention `</think>`, so
the tag alone is no proof: see `late_reasoning`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from moa_cli.core.endpoints import Delta
from moa_cli.core.values import unchecked

# White space before reasoning or before an answer is held back and dropped, up to this many
# characters. More is passed on, so that a model that writes only white space is seen to be alive.
_MOST_BLANKS = 256
_NOTHING = Delta()
# The marks between two channels of gpt-oss have fewer characters than this.
_MOST_MARKS = 1024
_CLOSE = "</think>"
# The opening and closing tags of reasoning at the start of an answer. `<thought>` is Gemini's,
# `[THINK]` Mistral's, `<|channel>thought` that of Gemma 4; the last pair is the format of gpt-oss,
# whose answer has a channel of its own.
_HARMONY = "<|channel|>analysis<|message|>"
_TAGS = {
    "<think>": _CLOSE,
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|channel>thought": "<channel|>",
    _HARMONY: "<|channel|>final<|message|>",
}
_HARMONY_ENDS = re.compile(r"<\|(?:return|end)\|>\s*\Z")
_HARMONY_START = re.compile(r"<\|end\|>(?:<\|start\|>assistant)?\s*\Z")
_LONGEST_END = len("<|return|>") + 8
# Models that always reason, and whose template writes the opening tag into the prompt.
_OPENED = re.compile(r"deepseek-r1|r1-distill|\bqwq\b|qwen3.*thinking|glm-z1|exaone-deep")
# Models that may reason, so a closing tag in their answers is likely to be real.
_THINKERS = re.compile(
    _OPENED.pattern + r"|qwen-?3|reason|think|magistral|deepseek-v[3-9]|glm-[4-9]|minimax-m|kimi-k"
)
# The usual first words of reasoning without an opening tag. An answer that begins like this is
# shown as reasoning and becomes the answer only at its end, so the pattern requires more than the
# first word. An answer whose first word fits is held back until `_TOLD_BY` characters have arrived.
_OPENERS = ("okay", "alright", "hmm")
_THOUGHT = re.compile(
    r"\w+[\s,.…]*(?:so\b|now\b|well\b)?[\s,]*"
    r"(?:(?:the|this) user\b|i need to\b|i'm trying to\b|let me (?:think|see)\b|let's see\b)",
    re.IGNORECASE,
)
_TOLD_BY = 40
_TAG_STARTS = tuple({tag[0] for tag in _TAGS})
# A closing tag at the start of an answer, alone on its line: the reasoning before it is in the
# prompt, in a field of its own, or empty. If the answer only mentions the tag, more follows.
_CLOSED = re.compile(rf"{_CLOSE}[ \t\r]*(\n|\Z)")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)


# Cached, because a process asks the same few models again and again.
@lru_cache(maxsize=256)
def opens_in_prompt(model: str) -> bool:
    """Whether a model of this name begins with reasoning that no tag opens."""
    return _OPENED.search(model.lower()) is not None


def late_reasoning(text: str, model: str = "") -> tuple[str, str] | None:
    """Reasoning and answer of a text with a closing tag but no opening tag; None if there is no
    reasoning.

    A closing tag counts only if it ends its line, stands outside of code blocks, and no opening tag
    stands before it. If the model is known to reason, that is enough. For other models the first
    tag must also stand right behind the last word of the reasoning or on the line below it, and a
    blank line or the end of the answer must follow: this is how models with those templates write
    it. Prose about the tag puts it into a sentence, quotes it, or sets it apart.

    text: the whole answer. model: the name of the model that answered, if it is known. The white
    space between reasoning and answer is dropped.
    """
    if _CLOSE not in text:
        return None
    known = _THINKERS.search(model.lower()) is not None
    at = text.find(_CLOSE)
    while at >= 0:
        before, after = text[:at], text[at + len(_CLOSE) :]
        if "<think>" in before:
            return None
        ends_line = not after.strip(" \t") or after.lstrip(" \t\r").startswith("\n")
        if ends_line and before.strip() and len(_FENCE.findall(before)) % 2 == 0:
            below = re.search(r"[^\s`\"'(*][ \t]*(\r?\n[ \t]*)?\Z", before)
            right = below is not None and (bool(below.group(1)) or not before[-1].isspace())
            blank = re.match(r"[ \t\r]*\n[ \t\r]*(?:\n|\Z)|\s*\Z", after) is not None
            if known or (right and blank):
                return before.rstrip(), after.lstrip()
        if not known:
            return None
        at = text.find(_CLOSE, at + 1)
    return None


class ThinkSplitter:
    """Separates the reasoning at the start of a streamed answer from the answer's text.

    Tags count only at the very start, so an answer that mentions a tag later keeps its words. An
    answer that begins with the usual first words of reasoning is treated as with `opened`.

    opened: whether the prompt contains the opening tag. Then all text up to the closing tag is
    treated as reasoning. If no closing tag arrives, see `unclosed`.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._held = ""
        self._state = "start"
        self._opened = opened
        # The tag that opened the reasoning, and whether a tag has closed it.
        self._open = ""
        self._closed = False

    @property
    def passing(self) -> bool:
        """Whether everything from now on is text of the answer."""
        return self._state == "text"

    @property
    def parted(self) -> bool:
        """Whether a tag has separated the reasoning."""
        return bool(self._open) or self._closed

    @property
    def unclosed(self) -> bool:
        """Whether everything was treated as reasoning, but without a tag. If the answer ends like
        this, the text was the answer."""
        return self._state == "thinking" and not self._open

    def expect_answer(self) -> None:
        """Note that the reasoning arrives in a field of its own, so all text is the answer."""
        self._opened = False

    def feed(self, text: str) -> Delta:
        """The text and the reasoning in the next piece, as far as they can be separated already."""
        if self._state == "text" or not text:
            return Delta(text=text)
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            # Checked first, because nearly all answers begin with no tag.
            may_be_tag = not begun or begun.startswith(_TAG_STARTS)
            tag = (
                next((tag for tag in _TAGS if begun.startswith(tag)), None) if may_be_tag else None
            )
            closed = _CLOSED.match(begun) if may_be_tag and not self._opened else None
            if tag is not None:
                self._state, self._open, self._held = "thinking", tag, begun[len(tag) :]
            elif closed is not None and closed.group(1):
                self._state, self._closed, self._held = "after", True, begun[closed.end() :]
            elif (
                may_be_tag
                and len(self._held) <= _MOST_BLANKS
                and (closed or any(tag.startswith(begun) for tag in (*_TAGS, _CLOSE)))
            ):
                return Delta()
            elif self._opened or _THOUGHT.match(begun[:_MOST_BLANKS]):
                self._state = "thinking"
            elif begun.lower().startswith(_OPENERS) and len(begun) < _TOLD_BY:
                return Delta()
            else:
                return self._release("text")
        if self._state == "after":
            return self._after()
        return self._final() if self._state == "final" else self._think()

    def _think(self) -> Delta:
        close = _TAGS.get(self._open, _CLOSE)
        reasoning, closing, rest = self._held.partition(close)
        if closing:
            self._state, self._held, self._closed = "after", rest, True
            if self._open == _HARMONY:
                reasoning = _HARMONY_START.sub("", reasoning)
            elif not self._open:
                reasoning = reasoning.rstrip()
            return Delta(text=self._after().text, reasoning=reasoning)
        keep = next(
            (n for n in range(len(close) - 1, 0, -1) if reasoning.endswith(close[:n])),
            0,
        )
        if self._open == _HARMONY:
            # Hold back a possible mark: marks stand between the reasoning and the channel of the
            # answer.
            mark = reasoning.find("<|", -_MOST_MARKS)
            keep = len(reasoning) - mark if mark >= 0 else reasoning.endswith("<")
        elif not self._open:
            # Hold back white space, which is dropped before the closing tag, as in
            # `late_reasoning`.
            blanks = len(reasoning) - len(reasoning[: len(reasoning) - keep].rstrip())
            keep = blanks if blanks <= _MOST_BLANKS else keep
        cut = len(reasoning) - keep
        self._held = reasoning[cut:]
        return Delta(reasoning=reasoning[:cut])

    def _after(self) -> Delta:
        # Drop the white space between the reasoning and the answer.
        begun = self._held.lstrip()
        if not begun and len(self._held) <= _MOST_BLANKS:
            return Delta()
        self._held = begun or self._held
        if self._open == _HARMONY:
            self._state = "final"
            return self._final()
        return self._release("text")

    def _final(self) -> Delta:
        """The answer's text up to the mark that ends it."""
        at = self._held.rfind("<", -_LONGEST_END)
        cut = at if at >= 0 else len(self._held)
        text, self._held = self._held[:cut], self._held[cut:]
        return Delta(text=text)

    def _release(self, state: str) -> Delta:
        text, self._held, self._state = self._held, "", state
        return unchecked(Delta, text=text)

    def flush(self) -> Delta:
        """The text that was held back, at the end of the answer."""
        state, held, self._held = self._state, self._held, ""
        if state == "after" or not held:
            return _NOTHING
        if state == "final":
            return Delta(text=_HARMONY_ENDS.sub("", held))
        if state == "thinking" and self._open == _HARMONY:
            held = _HARMONY_START.sub("", held)
        return Delta(reasoning=held) if state == "thinking" else Delta(text=held)
