"""Models measured in their two roles: alone, as proposers of a pool, and as aggregators."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moa_cli.bench.analysis.likeness import BLEU, LEVENSHTEIN
from moa_cli.bench.analysis.selection import Candidate
from moa_cli.bench.analysis.similarity import has_bleu, levenshtein, pairwise, pairwise_bleu
from moa_cli.bench.report.values import ReadRun, Unit
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.errors import BenchError

__all__ = ["AggregatorWorth", "Pool", "aggregators", "check_alike", "pool_of"]

_SINGLE = "single:"
_MIXTURE = "mixture"
# What a profile may differ in and still be the same mixture under another aggregator.
_NOT_COMPARED = ("name", "description", "aggregator")


@dataclass(frozen=True)
class Pool:
    """Models as proposers, all measured on the same items.

    origins: the run that each model's answers are taken from. measure: of likeness. items: how
    many were answered by all and judged; asked: how many there are.
    """

    candidates: tuple[Candidate, ...]
    origins: Mapping[str, ReadRun]
    measure: str
    items: int
    asked: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AggregatorWorth:
    """What the mixture is worth under that aggregator. run: the folder that it was measured in."""

    model: str
    run: str
    worth: Mean


def check_alike(runs: Sequence[ReadRun]) -> None:
    """Raise BenchError if the runs cannot be compared, or nothing is known of their answers."""
    first = runs[0]
    for one in runs:
        if not one.values.unit:
            raise BenchError(
                "; ".join(one.notes) or f"{one.path}: nothing is known of what answers are worth",
                hint=f"moa bench judge {one.path} --judge MODEL",
            )
        same = one.settings["dataset"]["sha256"] == first.settings["dataset"]["sha256"]
        if not same or (one.values.unit, one.values.judge) != (
            first.values.unit,
            first.values.judge,
        ):
            raise BenchError(
                f"{one.path} and {first.path} have different items or judges",
                hint="--judge names one that judged all of them",
            )


def pool_of(runs: Sequence[ReadRun]) -> Pool:
    """The models that answered alone in any of the runs, which are alike (`check_alike`).

    A model that did so in several is taken from the first. Raises BenchError if there is none,
    or there is no item that all have a judged answer to.
    """
    origins: dict[str, ReadRun] = {}
    for run in runs:
        for arm in run.results:
            if arm.startswith(_SINGLE):
                origins.setdefault(arm.removeprefix(_SINGLE), run)
    if not origins:
        raise BenchError(
            "no model answered alone in these runs", hint="moa bench run --arms single"
        )
    values = {model: _valued(run, _SINGLE + model) for model, run in origins.items()}
    units = _common(values)
    texts = {model: [_reply(origins[model], model, unit) for unit in units] for model in origins}
    likeness = pairwise_bleu(texts) if has_bleu() else pairwise(texts, levenshtein)
    items = len({item for item, _ in units})
    asked = max(one.asked for one in runs)
    notes = []
    if not has_bleu():
        notes.append(
            "likeness by Levenshtein: BLEU needs sacrebleu (pip install 'moa-chat[bench]')"
        )
    if items < asked:
        notes.append(f"partial: all have a judged answer to {items:,} of {asked:,} items only")
    return Pool(
        candidates=tuple(
            Candidate(model, _mean(values[model], units), likeness[model]) for model in origins
        ),
        origins=origins,
        measure=BLEU if has_bleu() else LEVENSHTEIN,
        items=items,
        asked=asked,
        notes=tuple(notes),
    )


def _valued(run: ReadRun, arm: str) -> Mapping[Unit, float]:
    """What the arm's answers are worth, where there are both."""
    answered = run.results.get(arm, {})
    known = run.values.by_arm.get(arm, {})
    return {unit: value for unit, value in known.items() if unit[0] in answered}


def _common(values: Mapping[str, Mapping[Unit, float]]) -> list[Unit]:
    """The units that all have a value for, in the order of the first. Raises BenchError."""
    first, *others = values.values()
    units = [unit for unit in first if all(unit in other for other in others)]
    if not units:
        fewest = min(values, key=lambda name: len(values[name]))
        raise BenchError(
            "there is no item that all models have a judged answer to:"
            f" {fewest} has {len(values[fewest]):,}"
        )
    return units


def _mean(values: Mapping[Unit, float], units: Iterable[Unit]) -> Mean:
    kept = list(units)
    return mean_of([values[unit] for unit in kept], groups=[item for item, _ in kept])


def _reply(run: ReadRun, model: str, unit: Unit) -> str:
    item, turn = unit
    return run.results[_SINGLE + model][item].replies[turn]


def aggregators(runs: Sequence[ReadRun]) -> tuple[AggregatorWorth, ...]:
    """Aggregators by what the same mixture is worth under each, the best first.

    Measured where the mixtures of two runs or more differ in nothing but the aggregator; of
    several such groups the largest is taken. Empty where there is none.
    """
    groups: dict[str, dict[str, ReadRun]] = {}
    for run in runs:
        model = run.settings["profile"].get("aggregator", {}).get("model")
        if model is not None and _valued(run, _MIXTURE):
            groups.setdefault(_but_for_aggregator(run.settings), {}).setdefault(model, run)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:
        return ()
    values = {model: _valued(run, _MIXTURE) for model, run in largest.items()}
    units = _common(values)
    found = [
        AggregatorWorth(model, str(run.path), _mean(values[model], units))
        for model, run in largest.items()
    ]
    return tuple(sorted(found, key=lambda one: -(one.worth.value or 0.0)))


def _but_for_aggregator(settings: Mapping[str, Any]) -> str:
    """All that a mixture's answers depend on, without the aggregator."""
    profile = {
        name: value for name, value in settings["profile"].items() if name not in _NOT_COMPARED
    }
    asked = [settings.get(name) for name in ("parity", "reference_paths", "prompt")]
    aggregator = settings["profile"].get("aggregator", {})
    its_settings = {
        name: value for name, value in aggregator.items() if name not in ("model", "fallbacks")
    }
    return json.dumps([profile, asked, its_settings], sort_keys=True)
