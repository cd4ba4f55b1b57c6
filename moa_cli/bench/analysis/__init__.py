"""What a mixture does with its proposals: similarity, preference, agreement, layers, costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.analysis.costs import SecondsPerItem, UsageShare, by_layer, by_model, seconds
from moa_cli.bench.analysis.layers import LayerAgreement, LayerGain, agreement, layers
from moa_cli.bench.analysis.preference import ControlAnswers, Preference, preference
from moa_cli.bench.analysis.similarity import BLEU, Similarity
from moa_cli.bench.analysis.turns import (
    NearestProposer,
    ReplyPair,
    by_proposer,
    corpus,
    items_of,
    pairs,
    turns_of,
)
from moa_cli.bench.data.released import read_outputs
from moa_cli.bench.report.values import ValuedRun
from moa_cli.bench.run.arms import SINGLE
from moa_cli.bench.run.reader import RunReader
from moa_cli.bench.run.records import Result
from moa_cli.core.errors import BenchError, UsageError


@dataclass(frozen=True)
class ArmAnalysis:
    """One arm that has proposals.

    items: that it answered. near: by proposer of the last layer. seconds_path: of an item on its
    critical path; seconds_sum: of all its calls. pairs: all that `near` is made of.
    """

    arm: str
    items: int
    turns: int
    near: tuple[NearestProposer, ...]
    preference: Preference
    agreement: tuple[LayerAgreement, ...]
    layers: tuple[LayerGain, ...]
    seconds_path: SecondsPerItem
    seconds_sum: SecondsPerItem
    by_model: tuple[UsageShare, ...]
    by_layer: tuple[UsageShare, ...]
    pairs: tuple[ReplyPair, ...]


@dataclass(frozen=True)
class Analysis:
    """Of a run. measures: of similarity, the first decides what is nearest. unit: of what answers
    are worth, "" if that is not known. judge: None for known answers. asked: items of the run."""

    run: str
    dataset: str
    asked: int
    unit: str
    judge: str | None
    measures: tuple[str, ...]
    arms: tuple[ArmAnalysis, ...]
    notes: tuple[str, ...]


def analyse(valued: ValuedRun, control: str | None = None) -> Analysis:
    """What each arm with proposals made of them.

    Args:
        valued: The run.
        control: An arm of the run, or a file of model outputs; None takes the aggregator's model
            alone, if that is an arm.

    Raises:
        BenchError: No arm has proposals.
        UsageError: There is no such control.
    """
    run = valued.run
    mixing = {
        arm: list(answers.values())
        for arm, answers in run.answers.items()
        if turns_of(answers.values())
    }
    if not mixing:
        raise BenchError(
            f"{run.path}: no arm has answers made of proposals",
            hint="analyse needs the arm `mixture` or `self`",
        )
    named = None if control is None else _control(valued, control)
    similarity = Similarity(corpus(run.answers))
    arms = tuple(_arm(valued, arm, results, named, similarity) for arm, results in mixing.items())
    return Analysis(
        run=str(run.path),
        dataset=run.settings.dataset.name,
        asked=run.settings.asked,
        unit=valued.values.unit,
        judge=valued.values.judge,
        measures=similarity.names,
        arms=arms,
        notes=(*valued.notes, *_notes(run, arms, similarity)),
    )


def _arm(
    valued: ValuedRun,
    arm: str,
    results: Sequence[Result],
    control: ControlAnswers | None,
    similarity: Similarity,
) -> ArmAnalysis:
    turns = turns_of(results)
    measured = tuple(pairs(turns, similarity))
    control = control or _aggregator_alone(valued.run, results)
    path, total = seconds(results, valued.run.calls)
    return ArmAnalysis(
        arm=arm,
        items=len(set(items_of(turns))),
        turns=len(turns),
        near=by_proposer(measured, similarity.names),
        preference=preference(turns, valued.values, similarity, control),
        agreement=agreement(turns, similarity),
        layers=layers(turns, similarity, valued.is_right),
        seconds_path=path,
        seconds_sum=total,
        by_model=by_model(results),
        by_layer=by_layer(results),
        pairs=measured,
    )


def _of_arm(run: RunReader, arm: str) -> ControlAnswers:
    replies = {
        (item, number): reply
        for item, result in run.answers[arm].items()
        for number, reply in enumerate(result.replies)
    }
    return ControlAnswers(arm, replies)


def _aggregator_alone(run: RunReader, results: Sequence[Result]) -> ControlAnswers | None:
    replies = [turn.reply for result in results for turn in result.turns]
    models = {reply.model for reply in replies if reply is not None}
    arms = [SINGLE + model for model in models if run.answers.get(SINGLE + model)]
    return _of_arm(run, arms[0]) if len(arms) == 1 else None


def _control(valued: ValuedRun, named: str) -> ControlAnswers:
    run = valued.run
    if run.answers.get(named):
        if turns_of(run.answers[named].values()):
            raise UsageError(f"--control: the arm `{named}` saw proposals itself")
        return _of_arm(run, named)
    file = Path(named)
    if not file.is_file():
        raise UsageError(
            f"--control: there is no arm and no file `{named}`",
            hint=f"the arms are {', '.join(run.answers)}",
        )
    if run.missing:
        raise BenchError(f"--control: {valued.notes[0]}", hint="--data names where the dataset is")
    [(name, answers)] = read_outputs([file], run.items).items()
    return ControlAnswers(name, {(item, 0): text for item, text in answers.items()})


def _notes(run: RunReader, arms: Sequence[ArmAnalysis], similarity: Similarity) -> Iterator[str]:
    asked = run.settings.asked
    for arm in arms:
        if arm.items < asked:
            yield f"partial: {arm.arm} has {arm.items:,} of {asked:,} items"
    if BLEU not in similarity.names:
        yield "no BLEU: it needs sacrebleu (pip install 'moa-chat[bench]')"
