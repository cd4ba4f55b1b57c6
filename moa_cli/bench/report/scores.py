"""Everything that a report prints, computed from a run's folder and one judge's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import dataset_of
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.judge.judgements import (
    ANCHOR,
    JUDGE_FILE,
    REFERENCE,
    Judgement,
    judge_folder,
    judges_of,
    read_judgements,
    read_texts,
)
from moa_cli.bench.report.measures import (
    Judged,
    Measured,
    Metric,
    accuracies,
    by_judge,
    has_answers,
)
from moa_cli.bench.run.folder import read_results, read_settings
from moa_cli.bench.run.journal import Journal
from moa_cli.bench.run.results import Result
from moa_cli.bench.run.seconds import path_seconds, sum_seconds
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.conversation import Usage
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["ArmScores", "JudgeInfo", "Metric", "Scores", "scores_of"]

# Whose figures are published; by kind of judgement.
_ORIGINAL = {"pairwise": "gpt-4-1106-preview", "rating": "gpt-4", "skills": "gpt-4-0613"}
_TINY = "local:smollm2"


@dataclass(frozen=True)
class ArmScores:
    """One arm's.

    by_category: of the dataset's. answered, failed: items. usage: of all answers, also of those
    that arms share. cost_per_item: USD, without a value where a price is unknown. seconds_path:
    of an item on its critical path, which is what it would take alone; seconds_sum: of all its
    calls. An anchor has neither usage nor seconds.
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


@dataclass(frozen=True)
class JudgeInfo:
    """model: as it was named. date: of its first judgement, YYYY-MM-DD. discrete: whether it
    told no probabilities."""

    model: str
    date: str
    discrete: bool


@dataclass(frozen=True)
class Scores:
    """A run's, by one judge, or by known answers alone (judge None).

    asked: items of the run. whole: items of the full dataset. anchors: released outputs, judged
    by the same judge. notes: what has to be said beside the numbers.
    """

    path: Path
    dataset: str
    asked: int
    whole: int
    judge: JudgeInfo | None
    arms: tuple[ArmScores, ...]
    anchors: tuple[ArmScores, ...]
    notes: tuple[str, ...]


@dataclass
class _Run:
    """What the folder holds. by_name: results by arm and item; verdicts: by arm."""

    path: Path
    data: Path | None
    settings: Mapping[str, Any]
    judge: Mapping[str, Any] | None
    texts: Mapping[tuple[str, str], Result]
    items: tuple[Item, ...] | None
    asked: int
    results: dict[str, list[Result]] = field(default_factory=dict)
    verdicts: dict[str, list[Judgement]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def scores_of(path: Path, judge: str | None, data: Path | None = None) -> Scores:
    """The scores of the run in that folder.

    judge: the model's name; None takes no judge, and only known answers count. data: the folder
    of datasets (or the user's own file), where the run's is not found again.
    Raises BenchError if the folder is no run's, or there are no judgements by that judge.
    """
    run = _read(path, judge, data)
    journal = Journal(path / "calls.jsonl")
    arms = tuple(_arm_scores(run, arm, run.results.get(arm, []), journal) for arm in _arms(run))
    anchors = tuple(
        _arm_scores(run, arm, [one for one in run.texts.values() if one.arm == arm], None)
        for arm in dict.fromkeys(arm for arm, _ in run.texts)
        if arm.startswith(ANCHOR)
    )
    told = run.judge
    return Scores(
        path=path,
        dataset=run.settings["dataset"]["name"],
        asked=run.asked,
        whole=run.settings["dataset"]["items"],
        judge=JudgeInfo(told["model"], told["date"], told["discrete"]) if told else None,
        arms=arms,
        anchors=anchors,
        notes=tuple(dict.fromkeys([*_notes(run), *run.notes, *_partial((*arms, *anchors))])),
    )


def _read(path: Path, judge: str | None, data: Path | None) -> _Run:
    settings = read_settings(path)
    whole, limit = settings["dataset"]["items"], settings["limit"]
    run = _Run(
        path=path,
        data=data,
        settings=settings,
        judge=None,
        texts={},
        items=None,
        asked=whole if limit is None else min(limit, whole),
    )
    try:
        run.items = dataset_of(settings, data).items[: run.asked]
    except (BenchError, UsageError) as error:
        run.notes.append(f"what depends on the dataset is withheld: {error.message}")
    for result in read_results(path):
        run.results.setdefault(result.arm, []).append(result)
    if judge is not None:
        folder = judge_folder(path, judge)
        if not (folder / JUDGE_FILE).exists():
            there = ", ".join(read_table(one / JUDGE_FILE)["model"] for one in judges_of(path))
            hint = f"judged by: {there}" if there else f"moa bench judge {path} --judge {judge}"
            raise BenchError(f"{path}: there are no judgements by {judge}", hint=hint)
        run.judge = read_table(folder / JUDGE_FILE)
        run.texts = read_texts(folder)
        for one in read_judgements(folder):
            run.verdicts.setdefault(one.arm, []).append(one)
    return run


def _arms(run: _Run) -> list[str]:
    named: list[str] = run.settings["arms"]
    return list(dict.fromkeys([*named, *run.results]))


def _arm_scores(
    run: _Run, arm: str, results: Sequence[Result], journal: Journal | None
) -> ArmScores:
    answered = [one for one in results if one.error is None]
    measured = _measured(run, arm, answered)
    run.notes.extend(measured.notes)
    usage = sum((one.usage for one in results), Usage())
    own = answered if journal is not None else []
    return ArmScores(
        arm=arm,
        metrics=measured.metrics,
        by_category=measured.by_category,
        answered=len(answered),
        failed=len(results) - len(answered),
        usage=usage,
        cost_per_item=mean_of([] if usage.unpriced_calls else [one.usage.cost for one in own]),
        seconds_path=mean_of([path_seconds(one, journal) for one in own] if journal else ()),
        seconds_sum=mean_of([sum_seconds(one, journal) for one in own] if journal else ()),
    )


def _measured(run: _Run, arm: str, answered: Sequence[Result]) -> Measured:
    total = Measured()
    if run.judge is not None:
        reference = {item: one for (name, item), one in run.texts.items() if name == REFERENCE}
        if run.judge.get("against"):
            against = run.results.get(run.judge["against"], [])
            reference = {one.item: one for one in against if one.error is None}
        judged = Judged(
            kind=run.judge["kind"],
            reference_name=(run.judge.get("reference") or {}).get("name"),
            verdicts=run.verdicts.get(arm, []),
            answered=answered,
            reference=reference,
            items=run.items,
            asked=run.asked,
            settings=run.settings,
            data=run.data,
        )
        if arm != run.judge.get("against"):
            total += by_judge(judged)
    if run.items is not None and has_answers(run.items, run.settings) and not _is_anchor(arm):
        total += accuracies(run.items, answered, run.settings)
    return total


def _is_anchor(arm: str) -> bool:
    return arm.startswith(ANCHOR)


def _notes(run: _Run) -> Iterator[str]:
    whole = run.settings["dataset"]["items"]
    if run.asked < whole:
        yield f"{run.asked:,} of {whole:,} items: not comparable with published figures"
    judge = run.judge
    if judge is not None and run.settings["dataset"]["known"]:
        original = _ORIGINAL[judge["kind"]]
        if judge["model"].rpartition(":")[2].rpartition("/")[2] == original:
            yield f"the judge {original} is retired, or about to be: soon nobody can repeat this"
        else:
            yield (
                f"published figures are by {original}, which is retired or about to be;"
                f" {judge['model']} judges on a scale of its own (--anchors shows it)"
            )
    if judge is not None and judge["discrete"]:
        yield (
            f"discrete: {judge['model']} told no log-probabilities, so each comparison counts as"
            " won or lost"
        )
    if _TINY in _models(run):
        yield f"{_TINY} is a tiny demonstration model, often wrong: its numbers mean little"


def _models(run: _Run) -> set[str]:
    asked = {
        answer.model
        for results in run.results.values()
        for one in results
        for turn in one.turns
        for answer in turn.answers()
    }
    return asked | ({run.judge["model"]} if run.judge else set())


def _partial(arms: Iterable[ArmScores]) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for arm in arms:
        short = [one for one in arm.metrics if one.partial]
        told = ", ".join(f"{one.name} {one.mean.n:,} of {one.asked:,}" for one in short)
        by_text.setdefault(told, []).append(arm.arm)
    for told, names in by_text.items():
        if told:
            yield f"partial: {told} ({', '.join(names)})"
