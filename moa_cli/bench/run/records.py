"""What stands in the files of a run and of its judges, line by line.

Nothing in a line of items.jsonl or judgements.jsonl depends on the clock or on the order in which
calls end: what a call took in seconds stands in calls.jsonl, under the key that its answer names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moa_cli.core.conversation import Failure, Usage

# Arms of a judge's outputs.jsonl: what pairs are compared with, and released outputs (the name of
# their author follows).
REFERENCE = "reference"
ANCHOR = "anchor:"


@dataclass(frozen=True)
class CallAnswer:
    """What one call of a turn answered.

    model: as the profile names it. text: without reasoning. key: of its call in calls.jsonl,
    "" where the answer was given beforehand (`--reference-paths`). answered_by: the model id
    that the endpoint told. usage: of that call alone, not of failed attempts before it.
    error: why there is no usable answer, or None.
    """

    model: str
    text: str
    key: str = ""
    reasoning: str = ""
    answered_by: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    error: Failure | None = None


@dataclass(frozen=True)
class TurnResult:
    """One user message and what it caused.

    proposals: by layer, in profile order. reply: the aggregator's, None if it was not asked.
    lost: a sentence for each model that gave no answer. trimmed: whether references were cut
    to fit a model's context.
    """

    proposals: tuple[tuple[CallAnswer, ...], ...] = ()
    reply: CallAnswer | None = None
    lost: tuple[str, ...] = ()
    trimmed: bool = False

    def layers(self) -> tuple[tuple[CallAnswer, ...], ...]:
        """The answers of each layer; the reply, if there is one, is the last."""
        return self.proposals if self.reply is None else (*self.proposals, (self.reply,))

    def answers(self) -> tuple[CallAnswer, ...]:
        """All answers, in order."""
        return tuple(answer for layer in self.layers() for answer in layer)


@dataclass(frozen=True)
class Result:
    """What one arm made of one item: a line of items.jsonl.

    arm: "mixture", "self" or "single:MODEL". item: the item's id. category: the item's.
    replies: one a turn, without reasoning; () if it failed. turns: as far as they came.
    usage: of all answers, also of those that another arm had paid for. error: why it failed,
    or None.
    """

    arm: str
    item: str
    category: str | None = None
    replies: tuple[str, ...] = ()
    turns: tuple[TurnResult, ...] = ()
    usage: Usage = field(default_factory=Usage)
    error: Failure | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Arm and item; a run has one result of them."""
        return self.arm, self.item


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict: a line of judgements.jsonl.

    arm, item: of the result that was judged; an arm `anchor:NAME` is of released outputs.
    turn: from 0; a pairwise judgement has 0. value: pairwise: the preference, 1 to 2, as
    AlpacaEval defines it; rating: 1 to 10; None if there is none that could be read. skills: of
    FLASK, in the judge's words, without those that it found not applicable. switched, discrete:
    pairwise only: whether the output was shown first, and whether the preference was read in a
    text. text: the judge's words as they came. key: of its call in the judge's calls.jsonl, ""
    for a draw without a call. error: why there is no judgement, or None.
    """

    arm: str
    item: str
    turn: int = 0
    value: float | None = None
    skills: Mapping[str, float] = field(default_factory=dict)
    switched: bool = False
    discrete: bool = False
    text: str = ""
    key: str = ""
    error: Failure | None = None

    @property
    def name(self) -> tuple[str, str, int]:
        """What is judged; a run has one verdict of a judge on it."""
        return self.arm, self.item, self.turn
