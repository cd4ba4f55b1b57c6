"""Proposers that judge each other's proposals: who is asked, and who wrote which proposal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moa_cli.core.conversation import Proposal
from moa_cli.engine.state import TurnState
from moa_cli.profile import Profile, Proposer


@dataclass(frozen=True)
class Peer:
    """A proposer that judges the others.

    settings: how it is asked. others: the places of the proposals that are not its own.
    """

    settings: Proposer
    others: tuple[int, ...]


@dataclass(frozen=True)
class Peers:
    """The proposers that judge. members: how many there would be if no proposer had been lost."""

    asked: tuple[Peer, ...]
    members: int


def peers(state: TurnState, proposals: Sequence[Proposal]) -> Peers:
    """Find the proposers that judge: those of the layer that the proposals come from.

    No proposer is asked if each would see at most one proposal, because there would be nothing to
    judge. A proposer without a proposal is not asked, with one exception: if the caller brought the
    proposals along, other models may have written them, so every proposer is asked.
    """
    layer = _layer_of(state.profile, proposals)
    if len(proposals) < 3:
        return Peers((), len(layer))
    asked = []
    for index, settings in enumerate(layer):
        own = _own(index, settings, proposals)
        if own is None and not state.given:
            continue
        others = tuple(place for place in range(len(proposals)) if place != own)
        asked.append(Peer(settings, others))
    return Peers(tuple(asked), len(layer))


def _layer_of(profile: Profile, proposals: Sequence[Proposal]) -> Sequence[Proposer]:
    if not profile.rounds:
        return ()
    layer = proposals[0].layer
    return profile.members(layer if 1 <= layer <= profile.rounds else profile.rounds)


def _own(index: int, settings: Proposer, proposals: Sequence[Proposal]) -> int | None:
    """The place of the proposal that a proposer wrote; None if it wrote none of them."""
    models = {*settings.candidates, settings.hedge_with}
    for place, proposal in enumerate(proposals):
        if proposal.index == index and proposal.model in models:
            return place
    names = [proposal.proposer for proposal in proposals]
    return names.index(settings.name) if settings.name in names else None
