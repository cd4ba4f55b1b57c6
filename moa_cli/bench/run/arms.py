"""The arms that a run compares: the mixture, its proposals under each strategy, Self-MoA, and each
model alone. Also the settings of the MoA authors' scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from moa_cli.bench.scoring import mt_bench
from moa_cli.core.errors import UsageError
from moa_cli.core.strategy import STRATEGIES
from moa_cli.core.text import meant
from moa_cli.profile import (
    Aggregator,
    Layer,
    ModelSettings,
    Profile,
    Proposer,
    short_name,
    waiting_for_all,
)

ARMS: Final = ("mixture", *STRATEGIES, "self", "single")
MIXTURE, SINGLE, GIVEN = "mixture", "single:", "given:"
_SETTINGS = tuple(field.name for field in fields(ModelSettings))
_FINAL: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}


@dataclass(frozen=True)
class Arm:
    """One way to answer. name: "mixture", the name of a strategy, "self", or "single:MODEL"."""

    name: str
    profile: Profile


def make_arms(profile: Profile, kinds: Sequence[str], best: str) -> list[Arm]:
    """The arms of these kinds, in the order of ARMS.

    Their turns send the whole conversation, wait for all proposers unless an option says otherwise,
    and fail if all proposers fail. They have no fallback and no alternatives, because the answer of
    another model would not be a result of this mixture. They make no report, because a report
    follows the reply and does not change it.

    The arm of a strategy has the proposers and the settings of the profile. So its calls to the
    proposers equal those of the mixture, and are paid for once. It runs all its layers. Only the
    mixture has a route or `stop_when_agreed`, so the comparison shows what they cost and save.

    best: the proposer that the arm `self` samples (see `best_of`).
    """
    strict = replace(
        waiting_for_all(profile).with_proposers(_fixed),
        multi_turn=True,
        on_all_failed="fail",
        report=False,
        aggregator=replace(profile.aggregator, fallbacks=(), alternatives=()),
    )
    found = []
    if MIXTURE in kinds:
        found.append(Arm(MIXTURE, strict))
    for name in STRATEGIES:
        if name in kinds:
            whole = replace(strict, strategy=name, route=(), stop_when_agreed=None)
            found.append(Arm(name, whole))
    if "self" in kinds:
        found.append(Arm("self", _self_moa(strict, best)))
    if "single" in kinds:
        found += _singles(strict)
    return found


def _fixed(proposers: Sequence[Proposer]) -> tuple[Proposer, ...]:
    return tuple(replace(proposer, alternatives=()) for proposer in proposers)


def best_of(profile: Profile, named: str | None) -> str:
    """The proposer that Self-MoA samples. named: its full or short name; None takes the first one.

    Raises UsageError if there is no such proposer, or none at all.
    """
    models = list(dict.fromkeys(proposer.model for proposer in proposers_of(profile)))
    if not models:
        raise UsageError("the arm `self` needs proposers", hint="the profile has none")
    if named is None:
        return models[0]
    for model in models:
        if named in (model, short_name(model)):
            return model
    raise UsageError(f"--best: there is no proposer `{named}`", hint=meant(named, models))


def proposers_of(profile: Profile) -> Iterable[Proposer]:
    """The proposers of all layers."""
    layers = map(profile.layer, range(1, profile.rounds + 1))
    return (proposer for layer in layers for proposer in layer)


def _self_moa(profile: Profile, best: str) -> Profile:
    """Self-MoA (arXiv:2502.00674): one proposer takes the place of all. In each layer it is sampled
    as often as the mixture has proposals there. The aggregator is the same."""
    sampled = next(proposer for proposer in proposers_of(profile) if proposer.model == best)
    layers = tuple(
        Layer(proposers=(replace(sampled, samples=len(profile.layer(number))),))
        for number in range(1, profile.rounds + 1)
    )
    return replace(profile, proposers=(), layers=layers)


def _singles(profile: Profile) -> list[Arm]:
    """An arm for each model alone, with its settings in the first layer that has it."""
    firsts: dict[str, ModelSettings] = {}
    for settings in (*proposers_of(profile), *profile.aggregators()):
        firsts.setdefault(settings.model, settings)
    return [
        Arm(
            SINGLE + model,
            replace(
                profile,
                proposers=(),
                layers=(),
                rounds=0,
                aggregator=Aggregator(**{name: getattr(settings, name) for name in _SETTINGS}),
            ),
        )
        for model, settings in firsts.items()
        if not model.startswith(GIVEN)
    ]


def with_given(profile: Profile, names: Sequence[str]) -> Profile:
    """The profile with existing answers as its first layer.

    names: the names of the answers' authors. Their model names are `given:NAME`.
    """
    if not profile.rounds:
        raise UsageError("--reference-paths needs a profile with at least one round")
    given = Layer(proposers=tuple(Proposer(model=GIVEN + name, name=name) for name in names))
    later = tuple(
        profile.layers[number - 1] if profile.layers else Layer(proposers=profile.proposers)
        for number in range(2, profile.rounds + 1)
    )
    return replace(profile, proposers=(), layers=(given, *later))


def with_parity(
    profile: Profile, parity: Literal["final", "category"], category: str | None
) -> Profile:
    """The profile with the settings of the MoA authors' scripts for a dataset.

    parity: "final" (AlpacaEval, FLASK): the final call has temperature 0.7 and 2048 tokens.
    Proposers keep the values of the profile; where it has none, they get the same. "category"
    (MT-Bench): all calls have 1024 tokens and the temperature of the item's category.
    """
    own: dict[str, Any] = {}
    final, absent = _FINAL, _FINAL
    if parity == "category":
        temperature = mt_bench.temperature(category or "")
        own = final = {"temperature": temperature, "max_tokens": 1024}
        absent = {}

    def changed(proposer: Proposer) -> Proposer:
        inherited = {
            name: value
            for name, value in absent.items()
            if getattr(proposer, name) is None and getattr(profile, name) is None
        }
        return replace(proposer, **own, **inherited)

    return replace(
        profile.with_proposers(lambda proposers: [*map(changed, proposers)]),
        aggregator=replace(profile.aggregator, **final),
    )
