"""What a mixture does with its proposals: similarity, preference, agreement, layers, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.analysis.layers import (
    LayerAgreement,
    LayerGain,
    NearestProposer,
    ReplyPair,
    agreement,
    by_proposer,
    corpus,
    layers,
    pairs,
    turns_of,
)
from moa_cli.bench.analysis.preference import ControlAnswers, Preference, preference
from moa_cli.bench.analysis.similarity import BLEU, Similarity
from moa_cli.bench.data.epochs import first_epoch, for_all_epochs, origin_of
from moa_cli.bench.data.released import read_outputs
from moa_cli.bench.report.values import ValuedRun, accuracy_by_model
from moa_cli.bench.run.arms import SINGLE
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.run.journal import CallAnswer, Result, path_seconds, shortened_lines, sum_seconds
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.conversation import Usage
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.strategy import REVIEW_NAMES


@dataclass(frozen=True)
class SecondsPerItem:
    """Seconds for an item. ninetieth: the 90th percentile."""

    median: float | None
    ninetieth: float | None
    mean: Mean


@dataclass(frozen=True)
class UsageShare:
    """The usage of a model or of a layer over all items. Answers that arms share are included.

    cost: USD for each item; without a value if a price is unknown.
    """

    name: str
    usage: Usage
    cost: Mean


def seconds_of(results: Sequence[Result], measure: Callable[[Result], float]) -> SecondsPerItem:
    """Statistics of the seconds of these results. measure: gives the seconds of a result."""
    told = [(measure(result), origin_of(result.item)) for result in results]
    values = [seconds for seconds, _ in told]
    if not values:
        return SecondsPerItem(None, None, grouped_mean(()))
    ninetieth = sorted(values)[math.ceil(0.9 * len(values)) - 1]
    return SecondsPerItem(statistics.median(values), ninetieth, grouped_mean(told))


def by_model(results: Sequence[Result]) -> tuple[UsageShare, ...]:
    """The usage of each model, the most expensive first. Answers that were read from files have no
    usage and are left out."""
    found = _spent(results, lambda _layer, answer: answer.model)
    return tuple(sorted(found, key=lambda share: (-share.usage.cost, -share.usage.total_tokens)))


def by_layer(results: Sequence[Result]) -> tuple[UsageShare, ...]:
    """The usage of each layer, of each kind of review, and of the reply."""
    return _spent(results, lambda layer, _answer: layer)


def _spent(
    results: Sequence[Result], name: Callable[[str, CallAnswer], str]
) -> tuple[UsageShare, ...]:
    by_item: list[tuple[str, dict[str, Usage]]] = []
    for result in results:
        took: dict[str, Usage] = {}
        for turn in result.turns:
            answers = [
                (f"layer {number}", answer)
                for number, layer in enumerate(turn.proposals, 1)
                for answer in layer
            ]
            answers += [
                (REVIEW_NAMES[answer.purpose], answer) for layer in turn.reviews for answer in layer
            ]
            if turn.reply is not None:
                answers.append(("reply", turn.reply))
            for layer_name, answer in answers:
                key = name(layer_name, answer)
                took[key] = took.get(key, Usage()) + answer.usage
        by_item.append((origin_of(result.item), took))
    found = []
    for key in dict.fromkeys(key for _, took in by_item for key in took):
        usages = [(took.get(key, Usage()), item) for item, took in by_item]
        usage = sum((part for part, _ in usages), Usage())
        if usage.calls:
            costs = [] if usage.unpriced_calls else [(part.cost, item) for part, item in usages]
            found.append(UsageShare(key, usage, grouped_mean(costs)))
    return tuple(found)


@dataclass(frozen=True)
class ModelAccuracy:
    """The share of a model's proposals in a layer (from 1) that are right, in percent."""

    model: str
    layer: int
    accuracy: Mean


@dataclass(frozen=True)
class ArmAnalysis:
    """The analysis of one arm with proposals.

    items: how many it answered. near: for each proposer of the last layer. seconds_path: on the
    critical path of an item. seconds_sum: over all calls of an item. accuracy: of each model's
    proposals in each layer; empty without known answers. pairs: the data from which `near` is
    computed.
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
    accuracy: tuple[ModelAccuracy, ...]
    pairs: tuple[ReplyPair, ...]


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run. asked: how many items the run has. unit: the unit of what answers are
    worth, "" if that is not known. judge: None if the right answers are known. measures: the
    measures of similarity; the first one decides which proposal is nearest."""

    run: str
    dataset: str
    asked: int
    unit: str
    judge: str | None
    measures: tuple[str, ...]
    arms: tuple[ArmAnalysis, ...]
    notes: tuple[str, ...]


def analyse(valued: ValuedRun, control: str | None = None) -> Analysis:
    """Analyse how each arm with proposals used them.

    control: an arm of the run, or a file of model outputs. None takes the arm in which the
    aggregator's model answers alone, if there is one. Raises BenchError if no arm has proposals,
    UsageError if there is no such control.
    """
    run = valued.run
    mixing = {
        arm: list(answers.values())
        for arm, answers in run.answers.items()
        if turns_of(answers.values())
    }
    if not mixing:
        raise _nothing_mixed(run)
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


def _nothing_mixed(run: RunReader) -> BenchError:
    failures = [
        result.error
        for result in run.results
        if result.error is not None and not result.arm.startswith(SINGLE)
    ]
    if failures:
        return BenchError(
            f"{run.path}: all results with proposals failed, the last one with:"
            f" {failures[-1].message}",
            hint="the same `moa bench run` command tries them again",
        )
    return BenchError(
        f"{run.path}: no arm has answers made of proposals",
        hint="analyse needs the arm `mixture` or `self`",
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
    journal = valued.run.calls
    return ArmAnalysis(
        arm=arm,
        items=len({turn.item for turn in turns}),
        turns=len(turns),
        near=by_proposer(measured, similarity),
        preference=preference(turns, valued.values, similarity, control),
        agreement=agreement(turns, similarity),
        layers=layers(turns, similarity, valued.is_right),
        seconds_path=seconds_of(results, lambda result: path_seconds(result, journal)),
        seconds_sum=seconds_of(results, lambda result: sum_seconds(result, journal)),
        by_model=by_model(results),
        by_layer=by_layer(results),
        accuracy=tuple(
            ModelAccuracy(model, layer, accuracy)
            for (model, layer), accuracy in accuracy_by_model(valued.run, arm).items()
        ),
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
    [(name, answers)] = read_outputs([file], first_epoch(run.items)).items()
    told = for_all_epochs(answers, run.settings.epochs)
    return ControlAnswers(name, {(item, 0): text for item, text in told.items()})


def _notes(run: RunReader, arms: Sequence[ArmAnalysis], similarity: Similarity) -> Iterator[str]:
    asked = run.settings.asked
    for arm in arms:
        if arm.items < asked:
            yield f"partial: {arm.arm} has {arm.items:,} of {asked:,} items"
    mixing = {arm.arm for arm in arms}
    yield from shortened_lines(result for result in run.results if result.arm in mixing)
    if BLEU not in similarity.names:
        yield "no BLEU: it needs sacrebleu (pip install 'moa-chat[bench]')"
