"""Chooses among a profile's candidates those that their providers still offer.

Hosts retire models every few months. A profile may name several candidates for each place, in order
of preference. The first one that is in its provider's list is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import TypeVar

from moa_cli.profile import ModelSettings, Profile

# Seconds to wait for a provider's list of models, if none is cached.
LIST_PATIENCE = 5.0
_M = TypeVar("_M", bound=ModelSettings)
# Given a model name: the name to request, "" if the provider does not offer the model, None if that
# is unknown.
Offered = Callable[[str], str | None]


def has_candidates(profile: Profile) -> bool:
    """Whether the profile has candidates to choose from."""
    return any(settings.alternatives for settings in _all(profile))


def candidates(profile: Profile) -> list[str]:
    """The names of all candidates, in all places that have several."""
    named = [name for entry in _all(profile) if entry.alternatives for name in entry.candidates]
    return list(dict.fromkeys(named))


def settled(profile: Profile, offered: Offered) -> Profile:
    """The profile with the chosen candidates; its notes say which were skipped.

    A model that another proposer already has is avoided, so that the mixture has different models.
    """
    chooser = _Chooser(offered)
    chosen = profile.with_proposers(lambda proposers: [*map(chooser.proposer, proposers)])
    aggregator = chooser.choose(profile.aggregator, ())
    if profile.aggregator.alternatives:
        there = tuple(name for name in aggregator.fallbacks if offered(name) != "")
        aggregator = replace(aggregator, fallbacks=there)
    return replace(
        chosen,
        aggregator=aggregator,
        notes=tuple(dict.fromkeys(chooser.notes)),
    )


def _all(profile: Profile) -> list[ModelSettings]:
    return [
        *profile.proposers,
        *(proposer for layer in profile.layers for proposer in layer.proposers),
        profile.aggregator,
    ]


class _Chooser:
    """Chooses candidates for one place after another. notes: notes for the user."""

    def __init__(self, offered: Offered) -> None:
        self._offered = offered
        self._chosen: dict[tuple[str, ...], str] = {}
        self.notes: list[str] = []

    def proposer(self, settings: _M) -> _M:
        """The proposer with its chosen candidate. Proposers with the same candidates get the same
        model."""
        if not settings.alternatives:
            return settings
        known = self._chosen.get(settings.candidates)
        taken = () if known else tuple(self._chosen.values())
        chosen = self.choose(settings, taken)
        self._chosen[settings.candidates] = chosen.model
        return chosen

    def choose(self, settings: _M, taken: tuple[str, ...]) -> _M:
        """The settings with the first candidate that is offered and, if possible, not taken."""
        if not settings.alternatives:
            return settings
        names = settings.candidates
        found = {name: self._offered(name) for name in names}
        possible = [found[name] or name for name in names if found[name] != ""]
        certain = [told for told in found.values() if told]
        if not possible:
            self.notes.append(f"none of {', '.join(names)} is offered now")
            return settings
        fresh = [name for name in certain if name not in taken]
        chosen = next(iter(fresh or certain or possible))
        before = takewhile(lambda name: (found[name] or name) != chosen, names)
        skipped = [name for name in before if found[name] == ""]
        if skipped:
            self.notes.append(f"{', '.join(skipped)}: not offered now, {chosen} is asked instead")
        others = tuple(name for name in possible if name != chosen)
        return replace(settings, model=chosen, alternatives=others)
