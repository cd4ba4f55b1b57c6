"""Answers compared with a reference, as AlpacaEval 2 does it (Dubois et al. 2024,
arXiv:2404.04475)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from moa_cli.bench.data.items import Item, text_in
from moa_cli.bench.data.released import MODEL_OUTPUTS
from moa_cli.bench.judge.kind import (
    Asked,
    JudgedArm,
    JudgeKind,
    JudgeTask,
    Question,
    prompt_file,
)
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.reader import RunReader
from moa_cli.bench.run.records import Judgement
from moa_cli.bench.scoring import alpaca
from moa_cli.bench.scoring import length_controlled as lc
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric, mean_of
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text_files import line_feeds

# The reference's answers to AlpacaEval: as released with the dataset, or a part of them.
REFERENCES = (
    "alpaca_eval/model_outputs.json",
    "alpaca_eval/gpt4_1106_preview.json",
    "alpaca_eval/slice50/model_outputs/gpt4_1106_preview.json",
)
OWN_FIT = "LC win rate (own fit)"
DIFFICULTY = ("alpaca_eval/df_gamed.csv", "alpaca_eval/reconstructed/df_gamed.csv")
# What the difficulties of AlpacaEval's instructions were fitted against.
_LC_BASELINE = "gpt4_1106_preview"
_PROMPT = "alpaca_eval/judge_prompt_alpaca_eval_clf.txt"


@dataclass(frozen=True)
class PairwiseTask(JudgeTask):
    """See `JudgeTask`. reference: what outputs are compared with, by item."""

    template: str
    reference: Mapping[str, str]

    def turns(self, item: Item) -> int:
        """See `JudgeTask`; nothing is compared with what is not there."""
        return int(item.id in self.reference)

    def _comparison(self, question: Question) -> alpaca.OutputPair:
        item = question.item
        return alpaca.OutputPair(item.turns[0], self.reference[item.id], question.replies[0])

    def settled(self, question: Question) -> Judgement | None:
        """See `JudgeTask`; equal outputs are a draw."""
        pair = self._comparison(question)
        if not pair.draw:
            return None
        return Judgement(*question.name, value=alpaca.DRAW, switched=pair.switched)

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `JudgeTask`."""
        pair = self._comparison(question)
        call = alpaca.judge_call(self.template, pair, logprobs=asked != "text")
        return replace(call, extra={"logprobs": 5}) if asked == "count" else call

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        """See `JudgeTask`."""
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


def _prompts(run: RunReader, reference: Mapping[str, str]) -> PairwiseTask:
    template = prompt_file(run, _PROMPT)
    return PairwiseTask((template,), line_feeds(text_in(template)), reference)


def _worth(verdict: Judgement) -> float | None:
    return alpaca.win_rate([verdict.value]).win_rate.value


def _figures(judged: JudgedArm) -> Figures:
    of_category = {result.item: result.category for result in judged.answered}
    told = alpaca.win_rate(verdict.value for verdict in judged.verdicts)
    metrics = [
        Metric("win rate", told.win_rate, judged.asked, "%"),
        Metric("discrete win rate", told.discrete_win_rate, judged.asked, "%"),
    ]
    controlled, notes = _length_controlled(judged)
    lengths = mean_of(len(result.replies[0]) for result in judged.answered)
    metrics += [*controlled, Metric("length", lengths, judged.asked, "characters")]
    by_category = {}
    for category, asked in judged.categories().items():
        values = [
            verdict.value
            for verdict in judged.verdicts
            if of_category.get(verdict.item) == category
        ]
        by_category[category] = (Metric("win rate", alpaca.win_rate(values).win_rate, asked, "%"),)
    return Figures(tuple(metrics), by_category, notes)


def _length_controlled(judged: JudgedArm) -> tuple[list[Metric], tuple[str, ...]]:
    """The length-controlled win rate, or why it is withheld."""
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
    rows = [
        lc.JudgedPair(
            int(verdict.item),
            verdict.value,
            len(judged.reference[verdict.item].replies[0]),
            len(replies[verdict.item]),
        )
        for verdict in judged.verdicts
        if verdict.value is not None
        and verdict.item in replies
        and verdict.item in judged.reference
    ]
    if not rows:
        return [], ()
    try:
        found = lc.length_controlled(rows, _baseline(file))
    except (BenchError, UsageError) as error:
        return [], (withheld + error.message,)
    return [Metric(OWN_FIT, found.win_rate, judged.asked, "%")], ()


def _baseline(file: Path) -> lc.Baseline:
    try:
        return lc.baseline(csv.DictReader(io.StringIO(text_in(file), newline="")))
    except ValueError as error:
        raise BenchError(f"{file}: cannot be read: {error}") from None


PAIRWISE = JudgeKind(
    name="pairwise",
    how="pairs, by log-probabilities",
    unit="win rate, %",
    original="gpt-4-1106-preview",
    answers=MODEL_OUTPUTS,
    compares=True,
    prompts=_prompts,
    worth=_worth,
    figures=_figures,
)
