"""The lines in the files of a run and of its judges; and the journal of its calls, which records
each call as soon as it has ended, so that none is made twice.

Nothing in a line of items.jsonl or judgements.jsonl depends on the clock or on the order in which
calls end: what a call took in seconds stands in calls.jsonl, under the key that its answer names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from moa_cli.bench.data.json_lines import Lines, plain, read_lines, to_line
from moa_cli.bench.scoring.rating_logprobs import NumberToken
from moa_cli.core.conversation import Citation, Failure, Usage, check_usage
from moa_cli.core.endpoints import Request
from moa_cli.core.outcomes import cut_text
from moa_cli.core.strategy import Decision, Purpose
from moa_cli.core.values import load_value

# Arms of a judge's outputs.jsonl: what pairs are compared with, and released outputs (the name of
# their author follows).
REFERENCE = "reference"
ANCHOR = "anchor:"


@dataclass(frozen=True)
class CallAnswer:
    """What one call of a turn answered.

    model: as the profile names it. text: without reasoning. key: of its call in calls.jsonl,
    "" where there is no call: the answer was given beforehand (`--reference-paths`), or the reply
    is a proposal's own words (`copied` of `TurnResult`). answered_by: the model id
    that the endpoint told. usage: of that call alone, not of failed attempts before it.
    error: why there is no usable answer, or None. citations: the sources that the endpoint names.
    unfinished, purpose: see `Proposal`.
    """

    model: str
    text: str
    key: str = ""
    reasoning: str = ""
    answered_by: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    error: Failure | None = None
    citations: tuple[Citation, ...] = ()
    unfinished: bool = False
    purpose: Purpose = ""


@dataclass(frozen=True)
class TurnResult:
    """One user message and what it caused.

    proposals: by layer, in profile order. reply: the aggregator's, None if it was not asked. lost:
    a sentence for each model that gave no answer. trimmed: whether references were cut to fit a
    model's context. reviews: what models said about the proposals, by layer. copied: whether the
    reply is a proposal's own words, for which no call was made. decision: how the strategy came to
    the reply. These three are left out of the line if they are empty.
    """

    proposals: tuple[tuple[CallAnswer, ...], ...] = ()
    reply: CallAnswer | None = None
    lost: tuple[str, ...] = ()
    trimmed: bool = False
    reviews: tuple[tuple[CallAnswer, ...], ...] = ()
    copied: bool = False
    decision: Decision | None = None

    def layers(self) -> tuple[tuple[CallAnswer, ...], ...]:
        """The answers of each layer, those of reviews behind those of proposers; the reply, if
        there is one, is the last."""
        layers = (*self.proposals, *self.reviews)
        return layers if self.reply is None else (*layers, (self.reply,))

    def answers(self) -> tuple[CallAnswer, ...]:
        return tuple(answer for layer in self.layers() for answer in layer)


@dataclass(frozen=True)
class Result:
    """What one arm made of one item: a line of items.jsonl.

    arm: see `Arm`. item: the item's id. category: the item's.
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


def shortened_lines(results: Iterable[Result]) -> list[str]:
    """In words, how many answers of these results were cut, and how many turns had shortened
    references; [] if none."""
    cuts: dict[str, list[int]] = {"replies": [0, 0], "proposals": [0, 0], "reviews": [0, 0]}
    cut_by_arm: Counter[str] = Counter()
    trimmed_by_arm: Counter[str] = Counter()
    turns = 0
    for arm, turn in ((result.arm, turn) for result in results for turn in result.turns):
        turns += 1
        trimmed_by_arm[arm] += turn.trimmed
        told = {
            "replies": [] if turn.reply is None else [turn.reply],
            "proposals": chain(*turn.proposals),
            "reviews": chain(*turn.reviews),
        }
        for name, answers in told.items():
            found = [answer for answer in answers if answer.error is None]
            cut = sum(cut_text(answer.finish_reason) is not None for answer in found)
            cuts[name][0] += cut
            cuts[name][1] += len(found)
            cut_by_arm[arm] += cut
    lines = []
    parts = [f"{cut:,} of {asked:,} {name}" for name, (cut, asked) in cuts.items() if cut]
    if parts:
        lines.append(f"cut (see `finish_reason`): {', '.join(parts)}{_by_arm(cut_by_arm)}")
    if trimmed := trimmed_by_arm.total():
        lines.append(
            f"trimmed: in {trimmed:,} of {turns:,} turns, proposals were shortened to fit a model's"
            f" context{_by_arm(trimmed_by_arm)}"
        )
    return lines


def _by_arm(counts: Counter[str]) -> str:
    if len(counts) < 2:
        return ""
    told = (f"{arm} {count:,}" for arm, count in counts.items() if count)
    return f"; by arm: {', '.join(told)}"


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict: a line of judgements.jsonl.

    arm, item: of the result that was judged; an arm `anchor:NAME` is of released outputs.
    turn: from 0; a pairwise judgement has 0; of a kind with several games, see `JudgeKind`. value:
    pairwise: the preference, 1 to 2, as AlpacaEval defines it; arena: from -2, the baseline is
    significantly better, to 2; rating: 1 to 10; None if there is none that could be read. skills:
    of FLASK, in the judge's words, without those that it found not applicable. switched, discrete:
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

    @property
    def unreadable(self) -> bool:
        """Whether the judge answered, and no verdict could be read in its answer."""
        return bool(self.key) and self.error is None and self.value is None and not self.skills


CALLS, BEGUN = "calls.jsonl", "begun.jsonl"


@dataclass(frozen=True)
class CallRecord:
    """A call that has ended: a line of calls.jsonl.

    key: see `call_key`. item, turn: what it was first made for; turn from 0. model: as the
    profile names it. usage: priced by what was known when the run began; estimated where the
    endpoint told none. seconds: from the request to the end; first_token likewise.
    when: its end, seconds since 1970. logprobs: see `Delta`. error: why there is no whole answer.
    Such a call is made again, but counts as spent. citations: see `CallAnswer`. number_logprobs: of
    the tokens of numbers in the answer, where log-probabilities were asked for. from_cache:
    whether another run made it, and paid for it (`CallCache`).
    """

    key: str
    item: str
    turn: int
    model: str
    text: str = ""
    reasoning: str = ""
    answered_by: str | None = None
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    seconds: float = 0.0
    first_token: float | None = None
    when: float = 0.0
    logprobs: tuple[tuple[str, float], ...] | None = None
    error: str | None = None
    citations: tuple[Citation, ...] = ()
    number_logprobs: tuple[NumberToken, ...] = ()
    from_cache: bool = False


def call_key(item: str, turn: int, model: str, request: Request, sample: int = 0) -> str:
    """The key of a call in an item's turn, for every arm: the whole request. It needs no layer, as
    the prompt of a later layer holds the answers of the layer before. sample: see `occurrence_key`.
    """
    fields = plain(request)
    # Arms with the same request share a call, at any place in their turns.
    del fields["place"]
    # A request without a search is known by the same key as ever.
    if not request.web:
        del fields["web"]
    # A message of nothing but text is known by the same key as ever.
    fields["messages"] = [
        {name: value for name, value in message.items() if value or name in ("role", "content")}
        for message in fields["messages"]
    ]
    table = [item, turn, model, fields]
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return occurrence_key(hashlib.sha256(text.encode()).hexdigest()[:32], sample)


def occurrence_key(key: str, occurrence: int) -> str:
    """The key of one of several equal calls of a turn (samples). occurrence: from 0."""
    return f"{key}-{occurrence}" if occurrence else key


def read_record(line: str) -> CallRecord:
    """Raises ValueError if it is no valid line, or has impossible costs, which would make sums and
    caps meaningless."""
    entry = load_value(CallRecord, json.loads(line))
    check_usage(entry.usage)
    return entry


class CallJournal:
    """The calls of a run. Raises BenchError if the file is damaged.

    A call is also recorded before it is made, in a second file that exists only while the work
    runs: what a killed start had begun counts as spent.

    path: None keeps them in memory. spent: what all of them took, those without an answer included.
    saved: what those took that other runs had made.
    """

    def __init__(self, path: Path | None) -> None:
        self._lines = None if path is None else Lines(path)
        self._begun = None if path is None else Lines(path.with_name(BEGUN))
        self._in_flight: defaultdict[str, list[CallRecord]] = defaultdict(list)
        self._entries: dict[str, CallRecord] = {}
        self.spent = self.saved = Usage()
        if path is None:
            return
        for entry in read_lines(path, read_record):
            self._take(entry)

    def _take(self, entry: CallRecord) -> None:
        if entry.from_cache:
            self.saved += entry.usage
        else:
            self.spent += entry.usage
        if entry.error is None:
            self._entries[entry.key] = entry

    def find(self, key: str) -> CallRecord | None:
        """The call of that key, if it was answered."""
        return self._entries.get(key)

    def __len__(self) -> int:
        return len(self._entries)

    def answered_models(self) -> frozenset[str]:
        return frozenset(entry.model for entry in self._entries.values())

    def take_up(self) -> None:
        """Count what a killed start had begun. Only the process that holds the folder may call it.

        Raises BenchError if that file is damaged, OSError if it cannot be counted.
        """
        if self._begun is None:
            return
        begun: dict[str, list[CallRecord]] = {}
        for entry in read_lines(self._begun.path, read_record):
            if entry.error is None:
                begun.setdefault(entry.key, []).append(entry)
            elif begun.get(entry.key):
                begun[entry.key].pop()
        for lost in begun.values():
            for entry in lost:
                self.add(replace(entry, error="the process was killed"))
        self._begun.path.unlink(missing_ok=True)

    def begin(self, entry: CallRecord) -> None:
        """A call is about to be made. entry: with what it may take. Raises OSError."""
        if self._begun is not None:
            self._begun.add(to_line(entry))
        self._in_flight[entry.key].append(entry)

    def ended(self, key: str) -> None:
        """It has ended, and the journal holds it if it took anything. Raises OSError."""
        self._in_flight[key].pop()
        if not self._in_flight[key]:
            del self._in_flight[key]
        if self._begun is not None:
            self._begun.add(to_line(CallRecord(key, "", 0, "", error="ended")))

    def add(self, entry: CallRecord) -> None:
        """Write down a call that has ended. Raises OSError."""
        if self._lines is not None:
            self._lines.add(to_line(entry))
        self._take(entry)

    def close(self) -> None:
        """No call will end any more."""
        if self._lines is not None:
            self._lines.close()
        if self._begun is not None:
            self._begun.close()
            if not self._in_flight:
                with contextlib.suppress(OSError):
                    self._begun.path.unlink(missing_ok=True)


def path_seconds(result: Result, journal: CallJournal) -> float:
    """Seconds that the item would take alone: the slowest call of each layer, turn by turn."""
    return sum(max(layer, default=0.0) for layer in _layer_seconds(result, journal))


def sum_seconds(result: Result, journal: CallJournal) -> float:
    """Seconds of all its calls, as if one were made after another."""
    return sum(sum(layer) for layer in _layer_seconds(result, journal))


def _layer_seconds(result: Result, journal: CallJournal) -> list[list[float]]:
    layers = [layer for turn in result.turns for layer in turn.layers()]
    records = [[journal.find(answer.key) for answer in layer] for layer in layers]
    return [[record.seconds for record in layer if record is not None] for layer in records]
