"""The judge of AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475). It judges each pair in one
order, drawn by a seed as in AlpacaEval, or in both orders. This module also measures how the
position of an output affects the judge."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.data.items import Item, text_in
from moa_cli.bench.data.released import MODEL_OUTPUTS
from moa_cli.bench.judge.kinds import (
    Asked,
    JudgedArm,
    JudgeKind,
    JudgeQuestion,
    JudgeTask,
    prompt_file,
)
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.run.journal import CallRecord, Judgement
from moa_cli.bench.scoring import alpaca
from moa_cli.bench.scoring import length_controlled as lc
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Mean, Metric, grouped_mean, share_of
from moa_cli.bench.scoring.statistics import interval_of
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.text import line_feeds

# Files of the reference's answers to AlpacaEval: those released with the dataset, or a part of
# them.
REFERENCES = (
    "alpaca_eval/model_outputs.json",
    "alpaca_eval/gpt4_1106_preview.json",
    "alpaca_eval/slice50/model_outputs/gpt4_1106_preview.json",
)
_DIGITS = 12
# What an answer is worth, in percent, if neither output of the pair is better.
_EVEN = 50.0
OWN_FIT = "LC win rate (own fit)"
DIFFICULTY = ("alpaca_eval/df_gamed.csv", "alpaca_eval/reconstructed/df_gamed.csv")
# The baseline against which the difficulties of AlpacaEval's instructions were fitted.
_LC_BASELINE = "gpt4_1106_preview"


@dataclass(frozen=True)
class PairwiseTask(JudgeTask):
    """See `JudgeTask`. template: the judge's prompt. reference: the outputs to compare with, by
    item."""

    template: str
    reference: Mapping[str, str]

    def turns(self, item: Item) -> int:
        """See `JudgeTask`. An item without a reference is not judged."""
        return int(item.id in self.reference)

    def _comparison(self, question: JudgeQuestion) -> alpaca.OutputPair:
        """The pair in the order of that game. The first game has the order that the seed gives."""
        item = question.item
        reference, reply = self.reference[item.id], question.replies[0]
        return alpaca.OutputPair(item.turns[0], reference, reply, reversed=question.turn % 2 == 1)

    def settled(self, question: JudgeQuestion) -> Judgement | None:
        """See `JudgeTask`. Equal outputs are a draw."""
        pair = self._comparison(question)
        if not pair.draw:
            return None
        return Judgement(*question.name, value=alpaca.DRAW, switched=pair.switched)

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        pair = self._comparison(question)
        call = alpaca.judge_call(self.template, pair, logprobs=asked != "text")
        return replace(call, extra={"logprobs": 5}) if asked == "count" else call

    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        switched = self._comparison(question).switched
        if asked == "text":
            value = alpaca.preference_from_text(record.text, switched=switched)
        else:
            told = [{"token": token, "logprob": log} for token, log in record.logprobs or ()]
            value = alpaca.preference_from_logprobs(told, switched=switched)
        return Judgement(
            *question.name,
            value=value,
            switched=switched,
            discrete=asked == "text",
            text=record.text,
            key=record.key,
        )


def _pairwise_prompts(run: RunReader, reference: Mapping[str, str]) -> PairwiseTask:
    template = prompt_file(run, "alpaca_eval/judge_prompt_alpaca_eval_clf.txt")
    return PairwiseTask((template,), line_feeds(text_in(template)), reference)


def preferences_of(verdicts: Iterable[Judgement], games: int) -> dict[str, float | None]:
    """The preference for each judged item, from 1 to 2; None if a game gave none. For two games it
    is their mean: a win or a loss if the games agree, and a draw if they contradict each other and
    the judge is sure in both."""
    told: dict[str, list[float | None]] = {}
    for verdict in verdicts:
        told.setdefault(verdict.item, []).append(verdict.value)
    if games == 1:
        return {item: values[-1] for item, values in told.items()}
    found: dict[str, float | None] = {}
    for item, values in told.items():
        known = [value for value in values if value is not None]
        # Rounded, because the mean of 1 + p and 2 - p must be exactly a draw.
        found[item] = round(sum(known) / games, _DIGITS) if len(known) == games else None
    return found


def _figures(judged: JudgedArm, games: int) -> Figures:
    preferences = preferences_of(judged.verdicts, games)

    def told_of(items: Collection[str]) -> alpaca.WinRate:
        return alpaca.win_rate(map(preferences.__getitem__, items), map(origin_of, items))

    told = told_of(preferences)
    controlled, notes = _length_controlled(judged, preferences)
    metrics = (
        Metric("win rate", told.win_rate, judged.asked, "%"),
        Metric("discrete win rate", told.discrete_win_rate, judged.asked, "%"),
        *controlled,
        *(_order_metrics(judged) if games > 1 else ()),
        Metric("length", judged.length(), judged.asked, "characters"),
    )
    by_category = {}
    for name, asked in judged.categories().items():
        members = [item for item in preferences if judged.category.get(item) == name]
        by_category[name] = (Metric("win rate", told_of(members).win_rate, asked, "%"),)
    return Figures(metrics, by_category, notes)


def _order_metrics(judged: JudgedArm) -> Iterator[Metric]:
    """How consistent the judge is, over the pairs that it was shown. Pairs of equal outputs are not
    shown to it."""
    pairs = ordered_pairs(BOTH_ORDERS, judged.verdicts)
    shown = {verdict.item for verdict in judged.verdicts if verdict.key or verdict.error}
    yield Metric("both orders agree", agreement_of(pairs), len(shown), "%")
    yield Metric("follows the position", following_of(pairs), len(shown), "%")


@dataclass(frozen=True)
class OrderedPair:
    """A pair that was judged in both orders.

    item: the item that is answered. first, second: what the answer is worth when it is shown first,
    and when it is shown second, in percent.
    """

    item: str
    first: float
    second: float

    @property
    def follows_first(self) -> bool:
        """Whether the judge prefers the first output in both orders."""
        return self.first > _EVEN > self.second

    @property
    def follows_second(self) -> bool:
        """Whether it prefers the second output in both orders."""
        return self.first < _EVEN < self.second

    @property
    def agrees(self) -> bool:
        """Whether both orders have the same winner, or are draws."""
        return (self.first > _EVEN) == (self.second > _EVEN) and (self.first < _EVEN) == (
            self.second < _EVEN
        )


def ordered_pairs(kind: JudgeKind, verdicts: Iterable[Judgement]) -> list[OrderedPair]:
    """The pairs that the judge decided in both orders. Equal outputs are left out, because no judge
    sees them."""
    told: dict[tuple[str, str, int], dict[bool, float]] = {}
    for verdict in verdicts:
        value = kind.worth(verdict) if verdict.key else None
        if value is not None:
            name = verdict.arm, verdict.item, verdict.turn // kind.games
            told.setdefault(name, {})[verdict.switched] = value
    return [
        OrderedPair(item, values[True], values[False])
        for (_, item, _), values in told.items()
        if len(values) == 2
    ]


def agreement_of(pairs: Iterable[OrderedPair]) -> Mean:
    """The share of pairs that have the same winner in both orders, in percent."""
    return share_of((float(pair.agrees), origin_of(pair.item)) for pair in pairs).in_percent()


def following_of(pairs: Iterable[OrderedPair]) -> Mean:
    """The share of pairs at which the judge prefers the same position in both orders, in
    percent."""
    return share_of(
        (float(pair.follows_first or pair.follows_second), origin_of(pair.item)) for pair in pairs
    ).in_percent()


def orders_note(pairs: list[OrderedPair]) -> str | None:
    """A sentence on how often the judge follows the position, and how many points an output gains
    by it; None without pairs."""
    following = following_of(pairs)
    items = len({origin_of(pair.item) for pair in pairs})
    interval = interval_of(replace(following, n=items), 0.0, 100.0)
    if interval is None:
        return None
    firsts = sum(pair.follows_first for pair in pairs)
    seconds = sum(pair.follows_second for pair in pairs)
    told = (
        f"position: at {firsts + seconds:,} of {len(pairs):,} pairs the judge prefers the same"
        f" position in both orders ({following.value:.1f} %, 95 % {interval.low:.1f} to"
        f" {interval.high:.1f}), the first {firsts:,} times, the second {seconds:,}"
    )
    gain = grouped_mean((pair.first - pair.second, origin_of(pair.item)) for pair in pairs)
    error = "" if gain.standard_error is None else f" ± {gain.standard_error:.1f}"
    return f"{told}; shown first, an output gets {gain.value:+.1f}{error} points"


def _length_controlled(
    judged: JudgedArm, preferences: Mapping[str, float | None]
) -> tuple[list[Metric], tuple[str, ...]]:
    """The length-controlled win rate, or a note that says why it is withheld."""
    run, reference = judged.run, judged.judge.settings.reference
    if run.dataset is None or run.dataset.name != "alpaca":
        return [], ()
    withheld = "the length-controlled win rate is withheld: "
    if reference is None or reference.name != _LC_BASELINE:
        return [], (f"{withheld}difficulties are known against {_LC_BASELINE} only",)
    file = run.data_file(*DIFFICULTY)
    if file is None:
        return [], (f"{withheld}there is no {DIFFICULTY[0]} (see `moa bench fetch alpaca`)",)
    replies = {result.item: result.replies[0] for result in judged.answered}
    rows = {
        item: lc.JudgedPair(
            int(origin_of(item)),
            preference,
            len(judged.reference[item].replies[0]),
            len(replies[item]),
        )
        for item, preference in preferences.items()
        if preference is not None and item in replies and item in judged.reference
    }
    if not rows:
        return [], ()
    try:
        table = csv.DictReader(io.StringIO(text_in(file), newline=""))
        known = lc.baseline(table)
        found = lc.length_controlled([*rows.values()], known, [*map(origin_of, rows)])
    except (BenchError, UsageError) as error:
        return [], (withheld + error.message,)
    return [Metric(OWN_FIT, found.win_rate, judged.asked, "%")], ()


PAIRWISE = JudgeKind(
    name="pairwise",
    how="pairs, by log-probabilities",
    unit="win rate, %",
    original="gpt-4-1106-preview",
    answers=MODEL_OUTPUTS,
    compares=True,
    logprobs=True,
    references=REFERENCES,
    even=alpaca.DRAW,
    prompts=_pairwise_prompts,
    worth=lambda verdict: alpaca.win_rate([verdict.value]).win_rate.value,
    figures=partial(_figures, games=1),
)

# The first game has the order that `PAIRWISE` uses, so verdicts of `PAIRWISE` are reused here.
BOTH_ORDERS = replace(
    PAIRWISE,
    name="pairwise_both_orders",
    how="pairs in both orders, by log-probabilities",
    games=2,
    figures=partial(_figures, games=2),
)
