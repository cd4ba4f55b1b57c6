"""Measures models in their two roles, as proposers of a pool (by their answers alone) and as
aggregators. Chooses the best proposers of a pool by quality and diversity, and makes a profile of
them.

After Mixture-of-Agents (arXiv:2406.04692, section 2.2), which names the two criteria; the score
is ours.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from moa_cli.bench.analysis.similarity import (
    BLEU,
    LEVENSHTEIN,
    bleu,
    has_bleu,
    pairwise,
)
from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.report.values import Unit, ValuedRun
from moa_cli.bench.run.arms import MIXTURE, SINGLE
from moa_cli.bench.run.settings import RunSettings
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.answers.similarity import levenshtein
from moa_cli.core.errors import BenchError
from moa_cli.profile import Profile, build
from moa_cli.profile.schema import PROFILE_KEYS


@dataclass(frozen=True)
class Candidate:
    """A model of the pool.

    quality: its mean score as a proposer. The unit must be the same for the whole pool, and more is
    better. similarity: its mean pairwise similarity to the rest of the pool, 0 to 1.
    """

    model: str
    quality: Mean
    similarity: Mean


@dataclass(frozen=True)
class Ranked:
    """A candidate and the parts of its score.

    quality_z, diversity_z: its quality and its 1 - similarity, in standard deviations from the
    pool's mean. score: a quality_z + b diversity_z. standard_error: the standard error of the
    score, computed from the standard errors of the two means, with the pool's standard deviations
    taken as exact; None if one of them is not known.
    """

    candidate: Candidate
    quality_z: float
    diversity_z: float
    score: float
    standard_error: float | None
    chosen: bool = False


def best(
    pool: Sequence[Candidate], k: int, *, a: float = 2.0, b: float = 1.0
) -> tuple[Ranked, ...]:
    """The whole pool, best score first, with the first k marked as chosen. Equal scores keep the
    pool's order.

    The score of a model is a z(quality) + b z(1 - similarity). z is the distance from the pool's
    mean in standard deviations (divided by n, not n - 1). If all models are equal in a part, z is 0
    for all, and that part decides nothing. In a pool of one, both are 0.

    Raises BenchError if k is not between 1 and the pool's size, a weight is negative, or a
    candidate was not measured.
    """
    if not 1 <= k <= len(pool):
        raise BenchError(f"{k} models cannot be chosen from a pool of {len(pool)}")
    if min(a, b) < 0:
        raise BenchError("the weights of quality and diversity cannot be negative")
    qualities = [_known(model, model.quality, "quality") for model in pool]
    diversities = [
        1 - _known(model, model.similarity, "diversity") if len(pool) > 1 else 0.0 for model in pool
    ]
    scales = statistics.pstdev(qualities), statistics.pstdev(diversities)
    ranked = [
        Ranked(model, z, z_diverse, a * z + b * z_diverse, _error(model, (a, b), scales))
        for model, z, z_diverse in zip(pool, _z(qualities), _z(diversities), strict=True)
    ]
    ranked.sort(key=lambda model: -model.score)
    return tuple(replace(model, chosen=place < k) for place, model in enumerate(ranked))


def _known(candidate: Candidate, mean: Mean, what: str) -> float:
    if mean.value is None:
        raise BenchError(f"the {what} of {candidate.model} was not measured")
    return mean.value


def _z(values: Sequence[float]) -> list[float]:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / spread if spread else 0.0 for value in values]


def _error(
    candidate: Candidate, weights: tuple[float, float], scales: tuple[float, float]
) -> float | None:
    squares = []
    for mean, weight, scale in zip(
        (candidate.quality, candidate.similarity), weights, scales, strict=True
    ):
        if not weight or not scale:
            continue
        if mean.standard_error is None:
            return None
        squares.append((weight * mean.standard_error / scale) ** 2)
    return math.sqrt(math.fsum(squares))


# Keys of a profile that are not copied to a chosen mixture. A route refers to proposers by number,
# and the proposers have changed.
_CHOSEN: Final = ("description", "rounds", "proposers", "layers", "aggregator", "route")


@dataclass(frozen=True)
class Pool:
    """Models as proposers, all measured on the same items.

    origins: the run from which each model's answers are taken. measure: the measure of similarity.
    items: how many items all models answered with a judged answer. asked: how many items there are.
    """

    candidates: tuple[Candidate, ...]
    origins: Mapping[str, ValuedRun]
    measure: str
    items: int
    asked: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AggregatorWorth:
    """What the mixture is worth with that aggregator. run: the folder of the run that measured
    it."""

    model: str
    run: str
    worth: Mean


def check_alike(runs: Sequence[ValuedRun]) -> None:
    """Raise BenchError if the runs cannot be compared, or it is not known what their answers are
    worth."""
    first = runs[0]
    for valued in runs:
        run, values = valued.run, valued.values
        if not values.unit:
            unknown = f"{run.path}: nothing is known of what answers are worth"
            raise BenchError(
                "; ".join(valued.notes) or unknown,
                hint=f"moa bench judge {run.path} --judge MODEL",
            )
        same = run.settings.dataset.sha256 == first.run.settings.dataset.sha256
        if not same or (values.unit, values.judge) != (first.values.unit, first.values.judge):
            raise BenchError(
                f"{run.path} and {first.run.path} have different items or judges",
                hint="--judge names one that judged all of them",
            )


def pool_of(runs: Sequence[ValuedRun]) -> Pool:
    """The models that answered alone in any of the runs. The runs must have passed `check_alike`. A
    model that answered alone in several runs is taken from the first. Raises BenchError if there is
    no such model, or no item to which all of them have a judged answer.
    """
    origins: dict[str, ValuedRun] = {}
    for valued in runs:
        for arm in valued.run.answers:
            if arm.startswith(SINGLE):
                origins.setdefault(arm.removeprefix(SINGLE), valued)
    if not origins:
        raise BenchError(
            "no model answered alone in these runs", hint="moa bench run --arms single"
        )
    values = {model: _worths(origin, SINGLE + model) for model, origin in origins.items()}
    units = _common(values)
    texts = {
        model: [origin.run.answers[SINGLE + model][item].replies[turn] for item, turn in units]
        for model, origin in origins.items()
    }
    by_bleu = has_bleu()
    groups = [origin_of(item) for item, _ in units]
    similarity = pairwise(texts, bleu if by_bleu else levenshtein, groups)
    items = len(set(groups))
    asked = max(valued.run.settings.asked for valued in runs)
    notes = []
    if not by_bleu:
        notes.append(
            "similarity by Levenshtein: BLEU needs sacrebleu (pip install 'moa-chat[bench]')"
        )
    if items < asked:
        notes.append(f"partial: all have a judged answer to {items:,} of {asked:,} items only")
    return Pool(
        candidates=tuple(
            Candidate(model, _mean(values[model], units), similarity[model]) for model in origins
        ),
        origins=origins,
        measure=BLEU if by_bleu else LEVENSHTEIN,
        items=items,
        asked=asked,
        notes=tuple(notes),
    )


def _worths(valued: ValuedRun, arm: str) -> Mapping[Unit, float]:
    """What the arm's answers are worth, for units that have both an answer and a value."""
    answered = valued.run.answers.get(arm, {})
    known = valued.values.by_arm.get(arm, {})
    return {unit: value for unit, value in known.items() if unit[0] in answered}


def _common(values: Mapping[str, Mapping[Unit, float]]) -> list[Unit]:
    """The units for which all models have a value, in the order of the first model. Raises
    BenchError if there are none."""
    first, *others = values.values()
    units = [unit for unit in first if all(unit in other for other in others)]
    if not units:
        fewest = min(values, key=lambda name: len(values[name]))
        raise BenchError(
            f"no item has a judged answer of every model: {fewest} has {len(values[fewest]):,}"
        )
    return units


def _mean(values: Mapping[Unit, float], units: Iterable[Unit]) -> Mean:
    return grouped_mean((values[unit], origin_of(unit[0])) for unit in units)


def aggregators(runs: Sequence[ValuedRun]) -> tuple[AggregatorWorth, ...]:
    """Aggregators by what the same mixture is worth with each, the best first.

    They can be compared if the mixtures of two or more runs differ only in the aggregator. If there
    are several such groups of runs, the largest is used. Empty if there is none.
    """
    groups: dict[str, dict[str, ValuedRun]] = {}
    for valued in runs:
        settings = valued.run.settings
        model = settings.aggregator.get("model")
        if model is not None and _worths(valued, MIXTURE):
            groups.setdefault(_but_for_aggregator(settings), {}).setdefault(model, valued)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:
        return ()
    values = {model: _worths(valued, MIXTURE) for model, valued in largest.items()}
    units = _common(values)
    found = [
        AggregatorWorth(model, str(valued.run.path), _mean(values[model], units))
        for model, valued in largest.items()
    ]
    return tuple(sorted(found, key=lambda measured: -(measured.worth.value or 0.0)))


def _but_for_aggregator(settings: RunSettings) -> str:
    """Everything on which a mixture's answers depend, except the aggregator's model, as a key."""
    profile = _without(settings.profile, "name", "description", "aggregator")
    files = [asdict(file) for file in settings.reference_paths]
    own = _without(settings.aggregator, "model", "fallbacks")
    return json.dumps([profile, settings.parity, files, settings.prompt, own], sort_keys=True)


def _without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def chosen_profile(
    name: str,
    description: str,
    proposers: Sequence[tuple[str, ValuedRun]],
    aggregator: tuple[str, ValuedRun],
) -> Profile:
    """A mixture of these models, each with the settings that it had in its run.

    Everything else, such as the number of rounds, is as in the first proposer's run. Raises
    BenchError or ProfileError if a run's profile cannot be read.
    """
    base = proposers[0][1].run.settings.profile
    table = {key: base[key] for key in PROFILE_KEYS if key in base and key not in _CHOSEN}
    table |= {
        "description": description,
        "rounds": max(1, base.get("rounds", 1)),
        "proposers": [_settings(origin, model) for model, origin in proposers],
        "aggregator": _settings(aggregator[1], aggregator[0], reply=True),
    }
    return build(name, table)


def _settings(origin: ValuedRun, model: str, *, reply: bool = False) -> dict[str, Any]:
    """The model's table in the profile of its run. reply: prefer the table of the aggregator, if
    the model has several roles."""
    profile = origin.run.settings.profile
    # In the order of layers, with the aggregator last.
    tables = [
        *profile.get("proposers", ()),
        *(table for layer in profile.get("layers", ()) for table in layer["proposers"]),
        profile["aggregator"],
    ]
    for table in reversed(tables) if reply else tables:
        if table.get("model") == model:
            return _without(table, "name", "samples", "fallbacks")
    raise BenchError(f"{origin.run.path}: its profile has no model {model}")
