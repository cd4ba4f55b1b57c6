"""What came of each item, as lines of items.jsonl.

Nothing in a line depends on the clock or on the order in which calls end: what a call took in
seconds stands in calls.jsonl, under the key that its answer names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moa_cli.bench.data.json_lines import plain
from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.text import dumps
from moa_cli.core.values import load_value

__all__ = ["Answer", "Result", "TurnResult", "result_from_line", "result_line"]


@dataclass(frozen=True)
class Answer:
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

    proposals: tuple[tuple[Answer, ...], ...] = ()
    reply: Answer | None = None
    lost: tuple[str, ...] = ()
    trimmed: bool = False

    def answers(self) -> tuple[Answer, ...]:
        """All of them, in order."""
        proposals = tuple(one for layer in self.proposals for one in layer)
        return proposals if self.reply is None else (*proposals, self.reply)


@dataclass(frozen=True)
class Result:
    """What one arm made of one item.

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


def result_line(result: Result) -> str:
    """The result as a line of items.jsonl, without its line end."""
    return dumps(plain(result))


def result_from_line(line: str) -> Result:
    """The result that `result_line` made a line of. Raises ValueError if it is none."""
    table: Mapping[str, Any] = json.loads(line)
    return load_value(Result, table)
