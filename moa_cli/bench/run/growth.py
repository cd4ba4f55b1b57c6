"""With which other settings a run may continue. It can get more items, epochs, arms and proposers,
and a model that never answered can be replaced or left out.

The key of a call is its whole request. So when work is repeated, only requests that are not in the
journal are sent, and the result equals that of a run that had the new settings from the start.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moa_cli.bench.data.loading import is_continued
from moa_cli.bench.run.arms import GIVEN, SINGLE
from moa_cli.bench.run.journal import Result
from moa_cli.bench.run.plan import RunPlan
from moa_cli.bench.run.settings import RunSettings, differences
from moa_cli.core.text import dumps, plural

# The settings that say which items are asked, and how often.
_WHICH_ITEMS = ("epochs", "limit", "sample", "seed_step")


@dataclass(frozen=True)
class Growth:
    """How a run continues. refused: differences with which it cannot continue. stale: the arms
    whose results are no longer valid, because their profile has changed. told: what is new, in
    words.
    """

    refused: tuple[str, ...] = ()
    stale: frozenset[str] = frozenset()
    told: tuple[str, ...] = ()


def growth_of(
    old: RunSettings, plan: RunPlan, results: Collection[Result], answered: Collection[str]
) -> Growth:
    """Decide how a run continues as planned.

    old: the run's settings. results: all results that it has. answered: the models that have
    answered.
    """
    new = plan.settings()
    good = [result for result in results if result.error is None]
    if not good and not answered:
        # There are no results yet, so none can have other settings.
        return Growth()
    asked = {item.id for item in plan.items}
    arms = {result.arm for result in good}
    fits = {
        **dict.fromkeys(_WHICH_ITEMS, all(result.item in asked for result in good)),
        "arms": arms <= set(new.arms),
        "best": "self" not in arms or old.best not in answered,
        "dataset": old.dataset.sha256 == new.dataset.sha256
        or is_continued(old.dataset, plan.dataset.file),
        "profile": _profile_grows(_plain(old.profile), _plain(new.profile), answered),
    }
    adopted: dict[str, Any] = {
        name: getattr(new, name) for name, fit in fits.items() if fit and hasattr(new, name)
    }
    # The name of the profile has no effect on the requests.
    adopted.setdefault("profile", {**old.profile, "name": new.profile["name"]})
    refused = tuple(differences(replace(old, **adopted), new))
    if refused:
        return Growth(refused)
    changed = _unnamed(_plain(old.profile)) != _unnamed(_plain(new.profile))
    stale = {arm for arm in old.arms if not arm.startswith(SINGLE)} if changed else set[str]()
    return Growth(stale=frozenset(stale), told=tuple(_told(old, new, good, plan, changed=changed)))


def _told(
    old: RunSettings, new: RunSettings, good: Sequence[Result], plan: RunPlan, *, changed: bool
) -> Iterator[str]:
    """What is new, in words. good: the results of the run that did not fail."""
    there = old.asked
    if there < plan.count:
        yield f"the run grows from {there:,} to {plan.count:,} items"
    if old.epochs < plan.epochs:
        yield f"the run grows from {plural(old.epochs, 'epoch')} to {plan.epochs:,}"
    if added := [arm for arm in new.arms if arm not in old.arms]:
        yield f"the run grows by {', '.join(added)}"
    if changed and good:
        yield (
            "the profile has other models: what they change is answered again, and calls that are"
            " there are not made again"
        )


def _plain(value: Any) -> Any:
    """The value as it would be read back from a JSON file, so that both can be compared."""
    return json.loads(dumps(value))


def _unnamed(profile: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in profile.items() if key not in ("name", "description")}


def _profile_grows(
    old: Mapping[str, Any], new: Mapping[str, Any], answered: Collection[str]
) -> bool:
    """Whether the new profile is the old one, except for more proposers, and for other models in
    place of models that never answered."""
    before, now = _unnamed(old), _unnamed(new)
    pairs = [(before.pop("proposers", []), now.pop("proposers", []))]
    layers, later = before.pop("layers", []), now.pop("layers", [])
    if len(layers) != len(later):
        return False
    for layer, changed in zip(layers, later, strict=True):
        if {**layer, "proposers": []} != {**changed, "proposers": []}:
            return False
        pairs.append((layer["proposers"], changed["proposers"]))
    final, other = before.pop("aggregator", {}), now.pop("aggregator", {})
    if final != other and _has_answered(final, answered):
        return False
    return before == now and all(_grows(*pair, answered) for pair in pairs)


def _grows(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], answered: Collection[str]
) -> bool:
    """Whether the new list has all proposers that have answered, in the same order, each with at
    least as many samples."""
    left = iter(new)
    return all(
        any(_at_least(proposer, other) for other in left)
        for proposer in old
        if _has_answered(proposer, answered)
    )


def _at_least(proposer: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return {**proposer, "samples": 1} == {**other, "samples": 1} and other.get(
        "samples", 1
    ) >= proposer.get("samples", 1)


def _has_answered(model: Mapping[str, Any], answered: Collection[str]) -> bool:
    named = model.get("model", [])
    names = [named] if isinstance(named, str) else named
    return any(name in answered or name.startswith(GIVEN) for name in names)
