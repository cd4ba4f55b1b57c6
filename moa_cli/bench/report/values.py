"""What each answer of a run is worth, by a judge's verdicts or by known right answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.judge.registry import kind_of, worths_of
from moa_cli.bench.run.folder import JudgeReader, RunReader, read_run
from moa_cli.bench.scoring.means import Mean, share_of

# An item and the number of a turn in it, from 0.
Unit = tuple[str, int]
# A function that scores a text as an answer to an item (arguments: the item's id, the text): from 0
# for wrong to 1 for right; None if that is not known.
IsRight = Callable[[str, str], float | None]


@dataclass(frozen=True)
class AnswerValues:
    """What answers are worth; more is better.

    unit: in words; "" if no values are known. judge: the judge's name; None for known answers.
    by_arm: for each arm (or `anchor:NAME`), the values of its replies. by_text: the value of any
    text that was judged. is_right: the function that gave the values, if they come from known
    answers; they are from 0 to 100 then.
    """

    unit: str = ""
    judge: str | None = None
    by_arm: Mapping[str, Mapping[Unit, float]] = field(default_factory=dict)
    by_text: Mapping[tuple[Unit, str], float] = field(default_factory=dict)
    is_right: IsRight | None = None


@dataclass(frozen=True)
class ValuedRun:
    """A run, and what its answers are worth.

    values: empty if there are neither judgements nor known answers. is_right: None without known
    answers. notes: which values are missing, and why.
    """

    run: RunReader
    values: AnswerValues
    is_right: IsRight | None
    notes: tuple[str, ...]


def over_epochs(values: Mapping[Unit, float], epochs: int) -> Mapping[Unit, float]:
    """The mean value of each unit over the epochs in which it has a value. The units have the
    items' ids in the dataset. epochs: how many epochs the run has."""
    if epochs == 1:
        return values
    told: dict[Unit, list[float]] = {}
    for (item, turn), value in values.items():
        told.setdefault((origin_of(item), turn), []).append(value)
    return {unit: sum(found) / len(found) for unit, found in told.items()}


def read_valued(path: Path, judge: str | None, data: Path | None = None) -> ValuedRun:
    """The run in that folder, with what its answers are worth. Raises BenchError.

    judge: the judge whose values are used; None takes known answers or, without these, the run's
    judge if it has only one. data: see `scores_of`.
    """
    run = read_run(path, data)
    notes = [f"known answers are not used: {run.missing}"] if run.missing else []
    is_right = _is_right(run)
    if judge is None and is_right is not None:
        values = _graded(run, is_right)
    else:
        reader = run.judge(judge) if judge is not None else _only_judge(run, notes)
        values = AnswerValues() if reader is None else _judged(run, reader)
    return ValuedRun(run, values, is_right, tuple(notes))


def values_of(run: RunReader, judge: JudgeReader | None) -> AnswerValues:
    """What a run's answers are worth by that judge. If it is None, or has given no verdict, known
    answers count. Raises BenchError."""
    judged = AnswerValues() if judge is None else _judged(run, judge)
    is_right = None if judged.by_arm else _is_right(run)
    return judged if is_right is None else _graded(run, is_right)


def _only_judge(run: RunReader, notes: list[str]) -> JudgeReader | None:
    """The judge of a run that has exactly one. Otherwise None, and a note says why."""
    if len(run.judges) == 1:
        return next(iter(run.judges.values()))
    if run.judges:
        notes.append(f"no judgements are used: --judge names one of {', '.join(run.judges)}")
    else:
        notes.append(
            f"{run.path} has no judgements, and its items have no known answers: figures that"
            " need the worth of answers are left out (moa bench judge)"
        )
    return None


def _judged(run: RunReader, judge: JudgeReader) -> AnswerValues:
    kind = kind_of(judge)
    texts = run.shown(judge)
    by_arm: dict[str, dict[Unit, float]] = {}
    by_text: dict[tuple[Unit, str], float] = {}
    for (arm, item, turn), value in worths_of(judge).items():
        if turn >= len(texts.get((arm, item), ())):
            continue
        unit = item, turn
        by_arm.setdefault(arm, {})[unit] = value
        # Only for first turns: the value of a later answer depends on the conversation before it.
        if turn == 0:
            by_text.setdefault((unit, texts[arm, item][0]), value)
    return AnswerValues(kind.unit, judge.settings.model, by_arm, by_text)


def _is_right(run: RunReader) -> IsRight | None:
    def is_right(item: str, text: str) -> float | None:
        verdict = run.verdict(item, text)
        return None if verdict is None else verdict.score

    return is_right if run.keyed else None


def _graded(run: RunReader, is_right: IsRight) -> AnswerValues:
    """The values by right answers, which are known for an item's last turn only."""
    by_arm = {
        arm: {
            (item, len(result.replies) - 1): 100.0 * right
            for item, result in answers.items()
            if (right := is_right(item, result.replies[-1])) is not None
        }
        for arm, answers in run.answers.items()
    }
    return AnswerValues("right answers, %", None, by_arm, {}, is_right)


def accuracy_by_model(run: RunReader, arm: str) -> dict[tuple[str, int], Mean]:
    """The share of each model's proposals in each layer (from 1) that are right, in percent.

    A model's answer in a later layer is based on all proposals of the layer before, so its accuracy
    shows how well the model aggregates. Empty without known answers.
    """
    told: dict[tuple[str, int], list[tuple[float, str]]] = {}
    for item, result in run.answers.get(arm, {}).items():
        for number, layer in enumerate(result.turns[-1].proposals if result.turns else (), 1):
            by_model: dict[str, list[float]] = {}
            for proposal in layer:
                if (verdict := run.verdict(item, proposal.text)) is not None:
                    by_model.setdefault(proposal.model, []).append(verdict.score)
            for model, scores in by_model.items():
                share = sum(scores) / len(scores)
                told.setdefault((model, number), []).append((share, origin_of(item)))
    return {place: share_of(scores).in_percent() for place, scores in told.items()}
