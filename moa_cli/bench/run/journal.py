"""The records in the files of a run and of its judges, and the journal of calls. The journal
records each call as soon as it has ended, so that no call is made twice.

Lines of items.jsonl and judgements.jsonl depend neither on the clock nor on the order in which
calls end. The seconds of a call are in calls.jsonl, under the key that its answer has.
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

# Names of arms in a judge's outputs.jsonl: the answers that replies are compared with, and released
# outputs (their author's name follows).
REFERENCE = "reference"
ANCHOR = "anchor:"


@dataclass(frozen=True)
class CallAnswer:
    """The answer to one call of a turn.

    model: its name in the profile. text: without reasoning. key: the key of its call in
    calls.jsonl; "" if there is no call, because the answer was read from a file
    (`--reference-paths`) or the reply is a copy of a proposal (`copied` of `TurnResult`).
    answered_by: the model id that the endpoint reported. usage: the usage of this call, without
    failed attempts before it. error: why there is no usable answer, or None. citations: the sources
    that the endpoint names. unfinished, purpose: see `Proposal`.
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
    """The result of one user message.

    proposals: by layer, in profile order. reply: the aggregator's answer; None if it was not asked.
    lost: a sentence for each model that gave no answer. trimmed: whether references were cut to fit
    a model's context. reviews: the answers of models about the proposals, by layer. copied: whether
    the reply is a copy of a proposal, for which no call was made. decision: how the strategy chose
    the reply. The last three are left out of the line if they are empty.
    """

    proposals: tuple[tuple[CallAnswer, ...], ...] = ()
    reply: CallAnswer | None = None
    lost: tuple[str, ...] = ()
    trimmed: bool = False
    reviews: tuple[tuple[CallAnswer, ...], ...] = ()
    copied: bool = False
    decision: Decision | None = None

    def layers(self) -> tuple[tuple[CallAnswer, ...], ...]:
        """The answers of each layer: first layers of proposals, then those of reviews, and the
        reply as the last layer, if there is one."""
        layers = (*self.proposals, *self.reviews)
        return layers if self.reply is None else (*layers, (self.reply,))

    def answers(self) -> tuple[CallAnswer, ...]:
        return tuple(answer for layer in self.layers() for answer in layer)


@dataclass(frozen=True)
class Result:
    """The result of one arm for one item: a line of items.jsonl.

    arm: see `Arm`. item: the item's id. category: the item's category. replies: one for each turn,
    without reasoning; () if the item failed. turns: the turns that were reached. usage: the usage
    of all answers, including answers that another arm paid for. error: why the item failed, or
    None.
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
        """Arm and item, which identify a result in a run."""
        return self.arm, self.item


def shortened_lines(results: Iterable[Result]) -> list[str]:
    """Sentences that say how many answers of these results were cut, and how many turns had
    shortened references; [] if none."""
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

    arm, item: the arm and the item of the judged result; an arm `anchor:NAME` has released outputs.
    turn: from 0; for a kind with several games, see `JudgeKind`. value: for pairs, the preference
    from 1 to 2, as AlpacaEval defines it; for arena, from -2 (the baseline is significantly better)
    to 2; for ratings, from 1 to 10; None if none could be read. skills: the scores of FLASK's
    skills, by the names that the judge used, without skills that it found not applicable. switched:
    for pairs and arena, whether the judged output was shown first. discrete: for pairs, whether the
    preference was read in a text. text: the judge's unchanged answer. key: the key of its call in
    the judge's calls.jsonl, "" for a draw without a call. error: why there is no judgement, or
    None.
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
        """Arm, item and turn, which identify a judge's verdict in a run."""
        return self.arm, self.item, self.turn

    @property
    def unreadable(self) -> bool:
        """Whether the judge answered, but no verdict could be read in its answer."""
        return bool(self.key) and self.error is None and self.value is None and not self.skills


CALLS, BEGUN = "calls.jsonl", "begun.jsonl"


@dataclass(frozen=True)
class CallRecord:
    """A call that has ended: a line of calls.jsonl.

    key: see `call_key`. item, turn: those that it was first made for; turns count from 0. model:
    its name in the profile. usage: with the prices that were known when the run began; estimated if
    the endpoint reported none. seconds: from the request to the end. first_token: seconds from the
    request to the first token. when: the time of its end, in seconds since 1970. logprobs: see
    `Delta`. error: why there is no complete answer; such a call is made again, but counts as spent.
    citations: see `CallAnswer`. number_logprobs: the log-probabilities at tokens of numbers in the
    answer, if they were asked for. from_cache: whether another run made the call and paid for it
    (`CallCache`).
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
    """The key of a call in an item's turn, a hash of its whole request. It is the same for all
    arms. It needs no layer, because the prompt of a later layer includes the answers of the layer
    before. sample: see `occurrence_key`.
    """
    fields = plain(request)
    # Arms with the same request share a call, at any place in their turns.
    del fields["place"]
    # Left out if empty, so that requests without a search keep the keys of older versions.
    if not request.web:
        del fields["web"]
    # Empty fields are left out, so that messages of text only keep the keys of older versions.
    fields["messages"] = [
        {name: value for name, value in message.items() if value or name in ("role", "content")}
        for message in fields["messages"]
    ]
    table = [item, turn, model, fields]
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return occurrence_key(hashlib.sha256(text.encode()).hexdigest()[:32], sample)


def occurrence_key(key: str, occurrence: int) -> str:
    """The key of one of several equal calls (samples) of a turn. occurrence: its number, from 0."""
    return f"{key}-{occurrence}" if occurrence else key


def read_record(line: str) -> CallRecord:
    """The call in a line. Raises ValueError if the line is not valid, or has impossible costs,
    which would make sums and caps meaningless."""
    entry = load_value(CallRecord, json.loads(line))
    check_usage(entry.usage)
    return entry


class CallJournal:
    """The calls of a run. Raises BenchError if the file is damaged.

    A call is also recorded before it is made, in a second file that exists only while the work
    runs. After a kill, the calls that were in flight count as spent.

    path: None keeps the calls in memory. spent: the usage of all calls that were made, including
    those without an answer. saved: the usage of calls that other runs had made.
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
        """The call with that key, if it was answered."""
        return self._entries.get(key)

    def __len__(self) -> int:
        return len(self._entries)

    def answered_models(self) -> frozenset[str]:
        return frozenset(entry.model for entry in self._entries.values())

    def take_up(self) -> None:
        """Count the calls that were in flight when an earlier start was killed. Only the process
        that has locked the folder may do this.

        Raises BenchError if the file of calls in flight is damaged, OSError if it or the journal
        cannot be changed.
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
        """Record a call that is about to be made. entry: it has the usage that the call may take at
        most. Raises OSError."""
        if self._begun is not None:
            self._begun.add(to_line(entry))
        self._in_flight[entry.key].append(entry)

    def ended(self, key: str) -> None:
        """Record that a call is no longer in flight. If it took anything, it must be in the journal
        already. Raises OSError."""
        self._in_flight[key].pop()
        if not self._in_flight[key]:
            del self._in_flight[key]
        if self._begun is not None:
            self._begun.add(to_line(CallRecord(key, "", 0, "", error="ended")))

    def add(self, entry: CallRecord) -> None:
        """Add a call that has ended to the journal. Raises OSError."""
        if self._lines is not None:
            self._lines.add(to_line(entry))
        self._take(entry)

    def close(self) -> None:
        """Close the files. The file of calls in flight is removed if no call is in flight."""
        if self._lines is not None:
            self._lines.close()
        if self._begun is not None:
            self._begun.close()
            if not self._in_flight:
                with contextlib.suppress(OSError):
                    self._begun.path.unlink(missing_ok=True)


def path_seconds(result: Result, journal: CallJournal) -> float:
    """The seconds that the item would take alone: the sum over the slowest call of each layer of
    each turn."""
    return sum(max(layer, default=0.0) for layer in _layer_seconds(result, journal))


def sum_seconds(result: Result, journal: CallJournal) -> float:
    """The sum of the seconds of all its calls."""
    return sum(sum(layer) for layer in _layer_seconds(result, journal))


def _layer_seconds(result: Result, journal: CallJournal) -> list[list[float]]:
    layers = [layer for turn in result.turns for layer in turn.layers()]
    records = [[journal.find(answer.key) for answer in layer] for layer in layers]
    return [[record.seconds for record in layer if record is not None] for layer in records]
