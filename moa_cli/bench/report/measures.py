"""What the figures of an arm are, by kind of judgement or by right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import data_file
from moa_cli.bench.data.items import Item, text_in
from moa_cli.bench.judge.judgements import Judgement
from moa_cli.bench.run.results import Result
from moa_cli.bench.scoring import alpaca, flask, mt_bench
from moa_cli.bench.scoring import length_controlled as lc
from moa_cli.bench.scoring.answers import Grade, grade_exact, grade_gsm8k, grade_math
from moa_cli.bench.scoring.means import Mean, mean_of, proportion_of
from moa_cli.core.errors import BenchError, UsageError

__all__ = [
    "DIFFICULTY",
    "OWN_FIT",
    "Judged",
    "Measured",
    "Metric",
    "accuracies",
    "by_judge",
    "grader_of",
    "has_answers",
]

# What the difficulties of AlpacaEval's instructions were fitted against.
_LC_BASELINE = "gpt4_1106_preview"
OWN_FIT = "LC win rate (own fit)"
DIFFICULTY = ("alpaca_eval/df_gamed.csv", "alpaca_eval/reconstructed/df_gamed.csv")


@dataclass(frozen=True)
class Metric:
    """A figure. asked: the values that it should be made of; less than that is partial.

    unit: "%", "of 10", "of 5", "characters".
    """

    name: str
    mean: Mean
    asked: int
    unit: str

    @property
    def partial(self) -> bool:
        """Whether it is made of less than was asked."""
        return self.mean.n < self.asked


@dataclass(frozen=True)
class Measured:
    """The figures of an arm, and what is to be said of them."""

    metrics: tuple[Metric, ...] = ()
    by_category: Mapping[str, tuple[Metric, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __add__(self, other: Measured) -> Measured:
        joined = {
            name: (*self.by_category.get(name, ()), *other.by_category.get(name, ()))
            for name in dict.fromkeys([*self.by_category, *other.by_category])
        }
        return Measured(self.metrics + other.metrics, joined, self.notes + other.notes)


@dataclass(frozen=True)
class Judged:
    """An arm and the verdicts on it.

    kind: "pairwise", "rating" or "skills". reference: what pairs are compared with, by item.
    asked: items of the run; items: they themselves, None where they cannot be read.
    """

    kind: str
    reference_name: str | None
    verdicts: Sequence[Judgement]
    answered: Sequence[Result]
    reference: Mapping[str, Result]
    items: Sequence[Item] | None
    asked: int
    settings: Mapping[str, Any]
    data: Path | None


def by_judge(judged: Judged) -> Measured:
    """The figures that are made of judgements."""
    return _KINDS[judged.kind](judged)


def _pairwise(judged: Judged) -> Measured:
    of_category = {one.item: one.category for one in judged.answered}
    told = alpaca.win_rate(one.value for one in judged.verdicts)
    metrics = [
        Metric("win rate", told.win_rate, judged.asked, "%"),
        Metric("discrete win rate", told.discrete_win_rate, judged.asked, "%"),
    ]
    controlled, notes = _length_controlled(judged)
    metrics += controlled
    lengths = mean_of(len(one.replies[0]) for one in judged.answered)
    metrics.append(Metric("length", lengths, judged.asked, "characters"))
    by_category = {}
    for category, asked in _categories(judged).items():
        values = [one.value for one in judged.verdicts if of_category.get(one.item) == category]
        by_category[category] = (Metric("win rate", alpaca.win_rate(values).win_rate, asked, "%"),)
    return Measured(tuple(metrics), by_category, notes)


def _length_controlled(judged: Judged) -> tuple[list[Metric], tuple[str, ...]]:
    """The length-controlled win rate, or why it is withheld."""
    if judged.settings["dataset"]["name"] != "alpaca" or not judged.settings["dataset"]["known"]:
        return [], ()
    withheld = "the length-controlled win rate is withheld: "
    if judged.reference_name != _LC_BASELINE:
        return [], (f"{withheld}difficulties are known against {_LC_BASELINE} only",)
    file = data_file(judged.settings, judged.data, *DIFFICULTY)
    if file is None:
        return [], (f"{withheld}there is no {DIFFICULTY[0]} (see `moa bench fetch alpaca`)",)
    replies = {one.item: one.replies[0] for one in judged.answered}
    rows = [
        lc.Judgement(
            int(one.item),
            one.value,
            len(judged.reference[one.item].replies[0]),
            len(replies[one.item]),
        )
        for one in judged.verdicts
        if one.value is not None and one.item in replies and one.item in judged.reference
    ]
    if not rows:
        return [], ()
    try:
        found = lc.length_controlled(rows, _baseline(file))
    except (BenchError, UsageError) as error:
        return [], (withheld + error.message,)
    return [Metric(OWN_FIT, found.win_rate, judged.asked, "%")], ()


def _baseline(file: Path) -> lc.Baseline:
    import csv
    import io

    try:
        return lc.baseline(csv.DictReader(io.StringIO(text_in(file), newline="")))
    except ValueError as error:
        raise BenchError(f"{file}: cannot be read: {error}") from None


def _rating(judged: Judged) -> Measured:
    category = {one.item: one.category or "" for one in judged.answered}
    ratings = [
        mt_bench.Rating(one.item, category[one.item], 1 if one.turn == 0 else 2, one.value)
        for one in judged.verdicts
        if one.item in category
    ]
    told = mt_bench.scores(ratings)
    metrics = (
        Metric("turn 1", told.turn_1, judged.asked, "of 10"),
        Metric("turn 2", told.turn_2, judged.asked, "of 10"),
        Metric("average", told.average, 2 * judged.asked, "of 10"),
    )
    by_category = {
        name: (Metric("average", told.by_category.get(name, mean_of(())), 2 * asked, "of 10"),)
        for name, asked in _categories(judged).items()
    }
    return Measured(metrics, by_category)


def _skills(judged: Judged) -> Measured:
    """By skill; `mean` is over all scores, those of a review taken as one observation."""
    reviews = [flask.Review(one.skills) for one in judged.verdicts]
    told = flask.skill_scores(reviews)
    scores = [
        (score, one.item)
        for one in judged.verdicts
        for skill, score in one.skills.items()
        if flask.short_skill(skill) is not None
    ]
    mean = mean_of((score for score, _ in scores), groups=[item for _, item in scores])
    lacking = _without_review(judged)
    metrics = [Metric("mean", mean, mean.n + sum(map(len, lacking.values())), "of 5")]
    for skill, found in told.by_skill.items():
        missing = sum(skill in skills for skills in lacking.values())
        metrics.append(Metric(skill, found, found.n + missing, "of 5"))
    return Measured(tuple(metrics))


def _without_review(judged: Judged) -> dict[str, set[str]]:
    """The skills of the items that no review was read of, by item."""
    read = {one.item for one in judged.verdicts if one.error is None and one.key and one.skills}
    return {
        item.id: {short for one in item.fields.get("skill", ()) if (short := _short(one))}
        for item in judged.items or ()
        if item.id not in read
    }


def _short(skill: object) -> str | None:
    return flask.short_skill(skill) if isinstance(skill, str) else None


_KINDS: Mapping[str, Callable[[Judged], Measured]] = {
    "pairwise": _pairwise,
    "rating": _rating,
    "skills": _skills,
}


def _categories(judged: Judged) -> dict[str, int]:
    """The categories of the run's items, and how many items each has."""
    if judged.items is not None:
        named = [one.category for one in judged.items]
    else:
        named = [one.category for one in judged.answered]
    return {name: named.count(name) for name in dict.fromkeys(named) if name is not None}


def has_answers(items: Iterable[Item], settings: Mapping[str, Any]) -> bool:
    """Whether replies can be right or wrong, without a judge."""
    return grader_of(settings) is not None and any(one.answer is not None for one in items)


def grader_of(settings: Mapping[str, Any]) -> Callable[[str, Item], Grade] | None:
    """What tells whether a reply to an item is right; None where the dataset has no answers."""
    if not settings["dataset"]["known"]:
        return lambda reply, item: grade_exact(reply, item.answer or "")
    return {
        "gsm8k": lambda reply, item: grade_gsm8k(reply, item.fields["answer"]),
        "math": lambda reply, item: grade_math(reply, item.answer or ""),
    }.get(settings["dataset"]["name"])


def accuracies(
    items: Sequence[Item], answered: Sequence[Result], settings: Mapping[str, Any]
) -> Measured:
    """How many replies are right, and how many of each layer's proposals: on average, and where
    the best of them counts."""
    grader = grader_of(settings)
    assert grader is not None
    grade = grader
    keyed = {one.id: one for one in items if one.answer is not None}
    results = [one for one in answered if one.item in keyed]
    asked = len(keyed)
    metrics: list[Metric] = []
    for number in range(1, max((len(one.turns[-1].proposals) for one in results), default=0) + 1):
        shares = list(_layer_shares(results, number, lambda text, item: grade(text, keyed[item])))
        mean = _percent(mean_of(share for share, _ in shares))
        best = _percent(proportion_of(best for _, best in shares))
        metrics.append(Metric(f"accuracy, layer {number}, mean", mean, asked, "%"))
        metrics.append(Metric(f"accuracy, layer {number}, best of", best, asked, "%"))
    right = {one.item: grade(one.replies[-1], keyed[one.item]).right for one in results}
    reply = _percent(proportion_of(right.values()))
    by_category = {}
    for name in dict.fromkeys(one.category for one in keyed.values()):
        if name is not None:
            members = [one.id for one in keyed.values() if one.category == name]
            share = _percent(proportion_of(right[one] for one in members if one in right))
            by_category[name] = (Metric("accuracy", share, len(members), "%"),)
    return Measured((Metric("accuracy", reply, asked, "%"), *metrics), by_category)


def _layer_shares(
    results: Iterable[Result], number: int, grade: Callable[[str, str], Grade]
) -> Iterator[tuple[float, bool]]:
    """For each item the share of right proposals in that layer, and whether any is right."""
    for one in results:
        layers = one.turns[-1].proposals
        if len(layers) >= number and layers[number - 1]:
            right = [grade(answer.text, one.item).right for answer in layers[number - 1]]
            yield sum(right) / len(right), any(right)


def _percent(share: Mean) -> Mean:
    if share.value is None or share.standard_error is None:
        return share
    return Mean(100 * share.value, 100 * share.standard_error, share.n)
