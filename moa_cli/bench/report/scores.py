"""The numbers of a report, computed from the folder of a run and that of one judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moa_cli.bench.data.epochs import epoch_of, origin_of
from moa_cli.bench.judge.kinds import JudgedArm
from moa_cli.bench.judge.pairwise import ordered_pairs, orders_note
from moa_cli.bench.judge.registry import kind_of
from moa_cli.bench.report.budget import tflops_of
from moa_cli.bench.report.differences import position_note, with_reference
from moa_cli.bench.report.values import AnswerValues, values_of
from moa_cli.bench.run.folder import JudgeReader, RunReader, read_run
from moa_cli.bench.run.journal import ANCHOR, Result, path_seconds, shortened_lines, sum_seconds
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.means import Figures, Mean, Metric, grouped_mean, share_of
from moa_cli.bench.scoring.statistics import EpochFigures, epoch_figures
from moa_cli.core.conversation import Usage

NO_MEAN = Mean(None, None, 0)
_TINY = "local:smollm2"


# For each metric, the achievement whose cost is shown (a right answer, a won comparison or a point
# of a rating), and how much of the metric's unit it is.
_REACHED = {
    "accuracy": ("right", 100.0),
    "win rate": ("win", 100.0),
    "score": ("win", 100.0),
    "average": ("point", 1.0),
    "mean": ("point", 1.0),
}


@dataclass(frozen=True)
class PointCost:
    """The cost of an achievement. metric: the metric that counts it. point: `right`, `win` or
    `point`; see `_REACHED`.

    value: USD; None if a price is unknown, or the metric is 0.
    """

    metric: str
    point: str
    value: float | None


@dataclass(frozen=True)
class Saved:
    """The work that turns of an arm skipped because it was not needed; see `Decision`.

    turns: how many turns skipped work. asked: how many turns there are. calls: how many calls were
    saved. cost: about how many USD were saved. reasons: what was skipped, with the number of turns.
    """

    turns: int
    asked: int
    calls: int
    cost: float
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class ArmScores:
    """The scores of one arm.

    by_category: the metrics for each category of the dataset. answered, failed: how many items.
    usage: the usage of all answers, including those that arms share. cost_per_item: USD; without a
    value if a price is unknown. seconds_path: on the critical path of an item, which is what the
    item would take alone. seconds_sum: over all calls of an item. tokens_per_item: over all calls,
    for prompts and answers. tflops_per_item: see `budget.path_tflops`; without a value if a model's
    size is not known. saved: None if nothing was skipped. An anchor has neither usage nor seconds.
    """

    arm: str
    metrics: tuple[Metric, ...]
    by_category: Mapping[str, tuple[Metric, ...]]
    answered: int
    failed: int
    usage: Usage
    cost_per_item: Mean
    seconds_path: Mean
    seconds_sum: Mean
    saved: Saved | None = None
    tokens_per_item: Mean = NO_MEAN
    tflops_per_item: Mean = NO_MEAN

    @property
    def point_costs(self) -> tuple[PointCost, ...]:
        """The cost of a right answer, a won comparison or a point of a rating. Empty for an anchor,
        whose answers were made elsewhere."""
        found = []
        for metric in () if self.arm.startswith(ANCHOR) else self.metrics:
            if metric.name in _REACHED:
                point, worth = _REACHED[metric.name]
                cost, reached = self.cost_per_item.value, metric.mean.value
                value = cost * worth / reached if cost is not None and reached else None
                found.append(PointCost(metric.name, point, value))
        return tuple(found)

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True)
class Scores:
    """The scores of a run by one judge or, if `judge` is None, by known answers only.

    asked: how many items the run has. whole: how many items the full dataset has. anchors: released
    outputs, judged by the same judge. notes: notes that must be shown with the numbers. values:
    what each answer is worth. origin: the SHA-256 of the dataset's file. epochs: how often each
    item was asked.
    """

    path: Path
    dataset: str
    asked: int
    whole: int
    judge: JudgeSettings | None
    arms: tuple[ArmScores, ...]
    anchors: tuple[ArmScores, ...]
    notes: tuple[str, ...]
    values: AnswerValues = field(default_factory=AnswerValues, repr=False)
    origin: str = ""
    epochs: int = 1

    @property
    def askings(self) -> int:
        return self.asked * self.epochs

    def by_epoch(self) -> dict[str, EpochFigures]:
        """What the answers of each arm are worth, epoch by epoch; empty if there is only one."""
        if self.epochs == 1:
            return {}
        return {
            arm: epoch_figures(
                (origin_of(item), epoch_of(item), value) for (item, _), value in known.items()
            )
            for arm, known in self.values.by_arm.items()
            if known
            and not arm.startswith(ANCHOR)
            and not (self.judge and arm == self.judge.against)
        }


def scores_of(path: Path, judge: str | None, data: Path | None = None) -> Scores:
    """The scores of the run in that folder. Raises BenchError.

    judge: the name of the judge's model; None uses known answers only. data: the data folder or the
    user's own file, if the dataset is no longer where the run found it.
    """
    run = read_run(path, data)
    reader = None if judge is None else run.judge(judge)
    notes = [f"what depends on the dataset is withheld: {run.missing}"] if run.missing else []
    by_arm: dict[str, list[Result]] = {arm: [] for arm in run.settings.arms}
    for result in run.results:
        by_arm.setdefault(result.arm, []).append(result)
    arms, anchors = (
        tuple(_arm_scores(run, reader, arm, results, notes) for arm, results in found.items())
        for found in (by_arm, reader.anchors() if reader else {})
    )
    values = values_of(run, reader)
    return Scores(
        path=path,
        dataset=run.settings.dataset.name,
        asked=run.settings.asked,
        whole=run.settings.dataset.items,
        judge=None if reader is None else reader.settings,
        arms=arms,
        anchors=anchors,
        notes=tuple(dict.fromkeys([*_notes(run, reader), *notes, *_partial((*arms, *anchors))])),
        values=with_reference(values, reader.settings.against if reader and values.judge else None),
        origin=run.settings.dataset.sha256,
        epochs=run.settings.epochs,
    )


def _arm_scores(
    run: RunReader,
    judge: JudgeReader | None,
    arm: str,
    results: Sequence[Result],
    notes: list[str],
) -> ArmScores:
    """Compute the scores of an arm. notes: notes on the figures are appended to this list."""
    answered = [result for result in results if result.error is None]
    is_anchor = arm.startswith(ANCHOR)
    figures = Figures()
    if judge is not None and arm != judge.settings.against:
        figures += kind_of(judge).figures(JudgedArm(run, judge, arm, answered))
    if run.keyed and not is_anchor:
        figures += _accuracies(run, answered)
    notes.extend(figures.notes)
    usage = sum((result.usage for result in results), Usage())
    own = [] if is_anchor else answered

    def mean(measure: Callable[[Result], float]) -> Mean:
        return grouped_mean((measure(result), origin_of(result.item)) for result in own)

    return ArmScores(
        arm=arm,
        metrics=figures.metrics,
        by_category=figures.by_category,
        answered=len(answered),
        failed=len(results) - len(answered),
        usage=usage,
        cost_per_item=NO_MEAN if usage.unpriced_calls else mean(lambda told: told.usage.cost),
        seconds_path=mean(lambda told: path_seconds(told, run.calls)),
        seconds_sum=mean(lambda told: sum_seconds(told, run.calls)),
        saved=_saved(own),
        tokens_per_item=mean(lambda told: told.usage.total_tokens),
        tflops_per_item=grouped_mean(
            (value, origin_of(result.item))
            for result, value in zip(own, tflops_of(own), strict=False)
        ),
    )


def _saved(results: Sequence[Result]) -> Saved | None:
    turns = [turn for result in results for turn in result.turns]
    found = [turn.decision for turn in turns if turn.decision is not None and turn.decision.skipped]
    if not found:
        return None
    # A reason has details after the colon, which differ from turn to turn.
    reasons = Counter(skipped.partition(":")[0] for told in found for skipped in told.skipped)
    return Saved(
        turns=len(found),
        asked=len(turns),
        calls=sum(told.saved_calls for told in found),
        cost=sum(told.saved_cost for told in found),
        reasons=dict(reasons),
    )


def _accuracies(run: RunReader, answered: Sequence[Result]) -> Figures:
    """The share of right replies, and for each layer the share of right proposals: the mean, and
    the share of items of which at least the best proposal is right."""
    replies = {
        result.item: verdict
        for result in answered
        if (verdict := run.verdict(result.item, result.replies[-1])) is not None
    }
    results = [result for result in answered if result.item in replies]
    asked = len(run.keyed)
    layers: list[Metric] = []
    depth = max((len(result.turns[-1].proposals) for result in results), default=0)
    for number in range(depth):
        # For each item with this layer, the scores of its proposals.
        right = []
        for result in results:
            for layer in result.turns[-1].proposals[number : number + 1]:
                verdicts = [run.verdict(result.item, answer.text) for answer in layer]
                if known := [verdict.score for verdict in verdicts if verdict is not None]:
                    right.append((known, origin_of(result.item)))
        mean = grouped_mean((sum(layer) / len(layer), item) for layer, item in right).in_percent()
        best = share_of((max(layer), item) for layer, item in right).in_percent()
        layers.append(Metric(f"accuracy, layer {number + 1}, mean", mean, asked, "%"))
        layers.append(Metric(f"accuracy, layer {number + 1}, best of", best, asked, "%"))
    by_category = {}
    for name in dict.fromkeys(item.category for item in run.keyed.values()):
        if name is not None:
            members = [item.id for item in run.keyed.values() if item.category == name]
            share = share_of(
                (replies[item].score, origin_of(item)) for item in members if item in replies
            )
            by_category[name] = (Metric("accuracy", share.in_percent(), len(members), "%"),)
    share = share_of((reply.score, origin_of(item)) for item, reply in replies.items())
    unread = share_of(
        (float(reply.answer is None), origin_of(item)) for item, reply in replies.items()
    )
    metrics = [Metric("accuracy", share.in_percent(), asked, "%")]
    if unread.value:
        metrics.append(Metric("unanswered", unread.in_percent(), asked, "%"))
    return Figures((*metrics, *layers), by_category)


def _notes(run: RunReader, judge: JudgeReader | None) -> Iterator[str]:
    asked, whole = run.settings.asked, run.settings.dataset.items
    if asked < whole:
        yield f"{asked:,} of {whole:,} items: not comparable with published figures"
    yield from shortened_lines(run.results)
    told = judge and judge.settings
    original = kind_of(judge).original if judge else ""
    if told and original and run.settings.dataset.known:
        if told.model.rpartition(":")[2].rpartition("/")[2] == original:
            yield f"the judge {original} is retired, or about to be: soon this cannot be repeated"
        else:
            yield (
                f"published figures are by {original}, which is retired or about to be;"
                f" {told.model} judges on a scale of its own (--anchors shows it)"
            )
    if judge is not None:
        unread = sum(verdict.unreadable for verdict in judge.judgements)
        if unread:
            yield (
                f"unreadable verdicts: {unread:,} of {len(judge.judgements):,}, which count in no"
                " score"
            )
    if told and told.discrete:
        yield (
            f"discrete: {told.model} told no log-probabilities, so each comparison counts as"
            " won or lost"
        )
    if judge and (note := _position(judge)):
        yield note
    models = {
        answer.model for result in run.results for turn in result.turns for answer in turn.answers()
    }
    if _TINY in models or (told and told.model == _TINY):
        yield f"{_TINY} is a tiny demonstration model, often wrong: its numbers mean little"


def _position(judge: JudgeReader) -> str | None:
    """A sentence on how an output's position affects the judge; None if the judge does not
    compare."""
    kind = kind_of(judge)
    if not kind.compares:
        return None
    if kind.games > 1:
        return orders_note(ordered_pairs(kind, judge.judgements))
    judged: dict[str, list[tuple[float, bool]]] = {}
    for verdict in judge.judgements:
        value = kind.worth(verdict)
        # A verdict without a key was made without the judge, because the outputs are equal.
        if value is not None and verdict.key:
            judged.setdefault(origin_of(verdict.item), []).append((value, verdict.switched))
    return position_note(judged)


def _partial(arms: Iterable[ArmScores]) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for arm in arms:
        # Joined by semicolons, because the name of a metric may have a comma.
        told = "; ".join(metric.coverage for metric in arm.metrics if metric.partial)
        by_text.setdefault(told, []).append(arm.arm)
    for told, names in by_text.items():
        if told:
            yield f"partial: {told} ({', '.join(names)})"
