"""How an answer ended, in words: cut, refused, or used unfinished.

Endpoints use different words for the same end of an answer. This module maps them to one set.
"""

from __future__ import annotations

import re
from typing import Literal

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import answer_name

# The beginning of the message of AnswerRefused. The model's words follow.
REFUSED = "it refused to answer"

# A model, and perhaps what it was asked for. A name of several words is not recognised.
_NAME_OF_LOST = re.compile(r"\S+( \([^)]*\))?: ")

Ending = Literal["stop", "length", "content_filter", "refusal", "tool_calls"]

_ENDINGS: dict[str, Ending] = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_completion_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    # Xiaomi's word, and vLLM's.
    "repetition_truncation": "length",
    "repetition": "length",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "guardrail_intervened": "content_filter",
    "refusal": "refusal",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "function_call_filter": "tool_calls",
}
_CUTS: dict[Ending, str] = {
    "length": "cut at the token limit (max_tokens)",
    "content_filter": "cut by the provider's content filter",
    "refusal": "ended by a refusal",
    "tool_calls": "ended by a call of a tool, which was not made",
}
_REPEATED = "cut because it repeated itself"
# As in _CUTS, for a proposal that was used before it was finished.
UNFINISHED = "used unfinished"
# Kinds of failures that are a normal effect of a quorum.
BY_QUORUM = ("Straggler", "NotAsked")


def ending_of(finish_reason: str | None) -> Ending:
    """The meaning of any endpoint's finish reason; `stop` if the reason is unknown or missing."""
    told = (finish_reason or "stop").lower().replace("-", "_").removeprefix("finish_reason_")
    # Gemini's OpenAI layer adds its own word: `content_filter: RECITATION`.
    return _ENDINGS.get(told.partition(":")[0], "stop")


def cut_text(finish_reason: str | None) -> str | None:
    """How an answer with that finish reason was cut, in words that follow "was"; None if it was
    not cut."""
    if finish_reason and "repetition" in finish_reason.lower():
        return _REPEATED
    return _CUTS.get(ending_of(finish_reason))


def cut_of(answer: Proposal | Turn) -> str | None:
    """How a proposal or a reply was cut, in words; None if it was not cut, or has no text."""
    if isinstance(answer, Proposal):
        if answer.unfinished:
            return UNFINISHED
        said = bool(answer.text)
    else:
        if answer.tool_calls and ending_of(answer.finish_reason) == "tool_calls":
            # The client makes the tool call, so the reply is whole.
            return None
        said = bool(answer.reply or answer.tool_calls)
    return cut_text(answer.finish_reason) if said and answer.error is None else None


def shortfall(turn: Turn) -> str:
    """Why a turn has no complete reply, in words; empty if it has one."""
    if turn.status == "finished":
        cut = cut_of(turn)
        return f"the reply was {cut}" if cut else ""
    told: str = turn.status
    if turn.error is not None:
        # The loss of the only model that failed says more than the error of the turn.
        only = turn.lost[-1:] if len(turn.causes) == 1 and not turn.capped else ()
        told += f": {one_line(only[0] if only else turn.error.message)}"
    if turn.asks_again:
        told = f"another attempt to answer the message above, whose reply stays; {told}"
    return told


def refusal_of(turn: Turn) -> str | None:
    """The words in which the aggregator of a turn refused to answer; None if it did not refuse."""
    if turn.status != "failed" or turn.reply or turn.model is None or not turn.causes:
        return None
    last = turn.causes[-1]
    words = last.message.removeprefix(REFUSED).removeprefix(": ")
    return words if last.kind == "AnswerRefused" and words else None


def names_the_lost(sentence: str) -> bool:
    """Whether a sentence of `Turn.lost` begins with the name of what was lost, as in `lab:a: status
    500`, so that the word "lost" can come before it. Others tell what became of the turn."""
    return _NAME_OF_LOST.match(sentence) is not None


def losses(turn: Turn) -> list[str]:
    """The sentences of `Turn.lost` without those that are a normal effect of the quorum, or are
    about unfinished proposals."""
    told = list(turn.lost)
    for proposal in (proposal for layer in turn.proposals for proposal in layer):
        by_quorum = proposal.error is not None and proposal.error.kind in BY_QUORUM
        if by_quorum or proposal.unfinished:
            told = [line for line in told if not line.startswith(f"{proposal.proposer}: ")]
    return told


def cut_lines(turn: Turn) -> list[str]:
    """A sentence for each proposal and review of a turn that was cut, and one for the reply."""
    answers = [answer for layer in (*turn.proposals, turn.reviews) for answer in layer]
    told = [
        (f"the {answer_name(answer.purpose)} of {answer.proposer}", cut_of(answer))
        for answer in answers
    ]
    told.append(("the reply", cut_of(turn)))
    return [f"{what} was {cut}" for what, cut in told if cut]
