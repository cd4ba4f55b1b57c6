"""What is compared: the mixture, Self-MoA, each model alone; and the reference's own settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from moa_cli.core.errors import UsageError
from moa_cli.core.text import nearest
from moa_cli.profile import Aggregator, ModelSettings, Profile, Proposer, short_name

__all__ = ["ARMS", "PARITY_DATASETS", "Arm", "best_of", "make_arms", "with_given", "with_parity"]

ARMS = ("mixture", "self", "single")
PARITY_DATASETS = ("alpaca", "flask", "mt")
_SETTINGS = tuple(one.name for one in fields(ModelSettings))
# FastChat's temperature_config, which the reference uses for all calls of MT-Bench.
_MT_TEMPERATURES = {
    **dict.fromkeys(("writing", "roleplay"), 0.7),
    **dict.fromkeys(("extraction", "math", "coding", "reasoning", "arena-hard"), 0.0),
    **dict.fromkeys(("stem", "humanities"), 0.1),
}
_MT_TOKENS = 1024
_FINAL: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}


@dataclass(frozen=True)
class Arm:
    """One way to answer. name: "mixture", "self", or "single:MODEL"."""

    name: str
    profile: Profile


def make_arms(profile: Profile, kinds: Sequence[str], best: str) -> list[Arm]:
    """The arms of these kinds (of ARMS), in the order of ARMS.

    Their turns send the whole conversation, lose nothing silently, and have no fallback: what
    another model answered would be no result of this mixture.
    """
    strict = replace(
        profile,
        multi_turn=True,
        on_all_failed="fail",
        aggregator=replace(profile.aggregator, fallbacks=()),
    )
    found = []
    if "mixture" in kinds:
        found.append(Arm("mixture", strict))
    if "self" in kinds:
        found.append(Arm("self", _self_moa(strict, best)))
    if "single" in kinds:
        found += _singles(strict)
    return found


def best_of(profile: Profile, named: str | None) -> str:
    """The proposer that Self-MoA samples: the one `named` (in full or short), else the first.

    Raises UsageError if there is none.
    """
    models = list(dict.fromkeys(one.model for one in _proposers(profile)))
    if not models:
        raise UsageError("the arm `self` needs proposers", hint="the profile has none")
    if named is None:
        return models[0]
    for model in models:
        if named in (model, short_name(model)):
            return model
    near = nearest(named, models)
    hint = f"did you mean `{near}`?" if near else f"there are {', '.join(models)}"
    raise UsageError(f"--best: there is no proposer `{named}`", hint=hint)


def _proposers(profile: Profile) -> Iterable[Proposer]:
    return (one for number in range(1, profile.rounds + 1) for one in profile.layer(number))


def _self_moa(profile: Profile, best: str) -> Profile:
    """Self-MoA (arXiv:2502.00674): one proposer, sampled as many times as the mixture has
    proposals in a layer, in as many layers; the same aggregator."""
    one = next(one for one in _proposers(profile) if one.model == best)
    layers = tuple(
        (replace(one, samples=len(profile.layer(number))),)
        for number in range(1, profile.rounds + 1)
    )
    return replace(profile, proposers=(), layers=layers)


def _singles(profile: Profile) -> list[Arm]:
    """Each model alone, asked as in the first layer that it is in."""
    firsts: dict[str, ModelSettings] = {}
    for one in (*_proposers(profile), *profile.aggregators()):
        firsts.setdefault(one.model, one)
    return [
        Arm(
            f"single:{model}",
            replace(
                profile,
                proposers=(),
                layers=(),
                rounds=0,
                aggregator=Aggregator(**{name: getattr(one, name) for name in _SETTINGS}),
            ),
        )
        for model, one in firsts.items()
        if not model.startswith(_GIVEN)
    ]


_GIVEN = "given:"


def with_given(profile: Profile, names: Sequence[str]) -> Profile:
    """The profile with answers that are there already as its first layer.

    names: of the answers' authors; as models they are called `given:NAME`.
    """
    if not profile.rounds:
        raise UsageError("--reference-paths needs a profile with one round at least")
    given = tuple(Proposer(model=_GIVEN + name, name=name) for name in names)
    later = tuple(
        profile.layers[number - 1] if profile.layers else profile.proposers
        for number in range(2, profile.rounds + 1)
    )
    return replace(profile, proposers=(), layers=(given, *later))


def with_parity(profile: Profile, dataset: str, category: str | None) -> Profile:
    """The profile with the settings of the authors' scripts for that dataset.

    alpaca, flask: the final call has temperature 0.7 and 2048 tokens; proposers have what the
    profile says, which is the same where it says nothing. mt: all calls have 1024 tokens and
    the temperature of the item's category.
    """
    own: dict[str, Any] = {}
    final, absent = _FINAL, _FINAL
    if dataset == "mt":
        temperature = _MT_TEMPERATURES.get(category or "", 0.7)
        own = final = {"temperature": temperature, "max_tokens": _MT_TOKENS}
        absent = {}

    def changed(one: Proposer) -> Proposer:
        inherited = {
            name: value
            for name, value in absent.items()
            if getattr(one, name) is None and getattr(profile, name) is None
        }
        return replace(one, **own, **inherited)

    return replace(
        profile,
        proposers=tuple(map(changed, profile.proposers)),
        layers=tuple(tuple(map(changed, layer)) for layer in profile.layers),
        aggregator=replace(profile.aggregator, **final),
    )
