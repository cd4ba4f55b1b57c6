"""What a mixture does with its proposals: likeness, preference, agreement, layers, costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.analysis.costs import Seconds, Spent, by_layer, by_model, seconds
from moa_cli.bench.analysis.layers import Agreement, Layer, agreement, layers
from moa_cli.bench.analysis.likeness import BLEU, Likeness
from moa_cli.bench.analysis.nearness import Near, Pair, nearness, pairs
from moa_cli.bench.analysis.preference import Control, Preference, preference
from moa_cli.bench.analysis.turns import corpus, items_of, turns_of
from moa_cli.bench.data.outputs import read_outputs
from moa_cli.bench.report.values import ReadRun
from moa_cli.bench.run.journal import Journal
from moa_cli.bench.run.results import Result
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["Analysis", "ArmAnalysis", "analyse"]


@dataclass(frozen=True)
class ArmAnalysis:
    """One arm that has proposals.

    items: that it answered. near: by proposer of the last layer. seconds_path: of an item on its
    critical path; seconds_sum: of all its calls. pairs: all that `near` is made of.
    """

    arm: str
    items: int
    turns: int
    near: tuple[Near, ...]
    preference: Preference
    agreement: tuple[Agreement, ...]
    layers: tuple[Layer, ...]
    seconds_path: Seconds
    seconds_sum: Seconds
    by_model: tuple[Spent, ...]
    by_layer: tuple[Spent, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Analysis:
    """Of a run. measures: of likeness, the first decides what is nearest. unit: of what answers
    are worth, "" if that is not known. judge: None for known answers. asked: items of the run."""

    run: str
    dataset: str
    asked: int
    unit: str
    judge: str | None
    measures: tuple[str, ...]
    arms: tuple[ArmAnalysis, ...]
    notes: tuple[str, ...]


def analyse(run: ReadRun, control: str | None = None) -> Analysis:
    """What each arm with proposals made of them.

    control: an arm of the run, or a file of model outputs; None takes the aggregator's model
    alone, if that is an arm. Raises BenchError if no arm has proposals, UsageError if there is
    no such control.
    """
    mixing = {
        arm: list(of_arm.values())
        for arm, of_arm in run.results.items()
        if turns_of(of_arm.values())
    }
    if not mixing:
        raise BenchError(
            f"{run.path}: no arm has answers made of proposals",
            hint="analyse needs the arm `mixture` or `self`",
        )
    named = None if control is None else _control(run, control)
    likeness = Likeness(corpus(run.results))
    journal = Journal(run.path / "calls.jsonl")
    arms = tuple(_arm(run, arm, mixing[arm], named, likeness, journal) for arm in mixing)
    return Analysis(
        run=str(run.path),
        dataset=run.settings["dataset"]["name"],
        asked=run.asked,
        unit=run.values.unit,
        judge=run.values.judge,
        measures=likeness.names,
        arms=arms,
        notes=(*run.notes, *_notes(run, arms, likeness)),
    )


def _arm(
    run: ReadRun,
    arm: str,
    results: Sequence[Result],
    control: Control | None,
    likeness: Likeness,
    journal: Journal,
) -> ArmAnalysis:
    turns = turns_of(results)
    measured = tuple(pairs(turns, likeness))
    control = control or _aggregator_alone(run, results)
    path, total = seconds(results, journal)
    return ArmAnalysis(
        arm=arm,
        items=len(set(items_of(turns))),
        turns=len(turns),
        near=nearness(measured, likeness.names),
        preference=preference(turns, run.values, likeness, control),
        agreement=agreement(turns, likeness),
        layers=layers(turns, likeness, run.grade),
        seconds_path=path,
        seconds_sum=total,
        by_model=by_model(results),
        by_layer=by_layer(results),
        pairs=measured,
    )


def _of_arm(run: ReadRun, arm: str) -> Control:
    replies = {
        (one.item, number): reply
        for one in run.results[arm].values()
        for number, reply in enumerate(one.replies)
    }
    return Control(arm, replies)


def _aggregator_alone(run: ReadRun, results: Sequence[Result]) -> Control | None:
    models = {turn.reply.model for one in results for turn in one.turns if turn.reply is not None}
    arms = [arm for arm in (f"single:{model}" for model in models) if run.results.get(arm)]
    return _of_arm(run, arms[0]) if len(arms) == 1 else None


def _control(run: ReadRun, named: str) -> Control:
    if run.results.get(named):
        if turns_of(run.results[named].values()):
            raise UsageError(f"--control: the arm `{named}` saw proposals itself")
        return _of_arm(run, named)
    file = Path(named)
    if not file.is_file():
        raise UsageError(
            f"--control: there is no arm and no file `{named}`",
            hint=f"the arms are {', '.join(run.results)}",
        )
    if run.items is None:
        raise BenchError(f"--control: {run.notes[0]}", hint="--data names where the dataset is")
    (found,) = read_outputs([file], run.items)
    return Control(found.name, {(item, 0): text for item, text in found.answers.items()})


def _notes(run: ReadRun, arms: Sequence[ArmAnalysis], likeness: Likeness) -> Iterator[str]:
    for one in arms:
        if one.items < run.asked:
            yield f"partial: {one.arm} has {one.items:,} of {run.asked:,} items"
    if BLEU not in likeness.names:
        yield "no BLEU: it needs sacrebleu (pip install 'moa-chat[bench]')"
