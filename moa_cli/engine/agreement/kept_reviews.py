"""Reviews that exist already of the proposals that a turn is made from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from moa_cli.core.conversation import Proposal
from moa_cli.core.strategy import Purpose
from moa_cli.profile import ModelSettings

# Reviews that ended for a reason that is not their model's: the next turn asks for them again.
_CUT_OFF = ("Abandoned", "BudgetReached")


class KeptReviews:
    """What models have said about proposals, kept for the turns that are made from the same ones.

    Turns that share a value ask under its lock, so that each review is asked for once. It belongs
    to one event loop.

    reviews: those that there are. settled: whether a review that was lost, or that cannot be read,
    is kept as such; otherwise it is asked for again. complete: whether no more reviews are to be
    made, so that no model is asked for one. grown: called with the reviews that are added.
    """

    def __init__(
        self,
        reviews: Iterable[Proposal] = (),
        *,
        settled: bool = False,
        complete: bool = False,
        grown: Callable[[Sequence[Proposal]], None] = lambda _: None,
    ) -> None:
        self.settled = settled or complete
        self.complete = complete
        self.lock = asyncio.Lock()
        self._grown = grown
        self._reviews = [kept for kept in reviews if self.settled or kept.error is None]

    def find(
        self,
        settings: ModelSettings,
        about: str,
        usable: Callable[[Proposal], bool],
        used: set[int],
    ) -> Proposal | None:
        """A review by that model about the same (`Proposal.about`), whatever it was for: a
        comparison serves as a report. It is usable, or settled: then it may be one that was lost.

        used: the places of the reviews that have served the turn; the place of this one is added.
        Several samples of a model give several reviews, so each serves once.
        """
        places = [
            place
            for place, kept in enumerate(self._reviews)
            if place not in used and kept.about == about and _is_by(kept, settings)
        ]
        best = [
            place
            for place in places
            if self._reviews[place].error is None and usable(self._reviews[place])
        ]
        for place in best or (places if self.settled else ()):
            used.add(place)
            return self._reviews[place]
        return None

    def covers(self, purpose: Purpose, models: Iterable[ModelSettings]) -> bool:
        """Whether each of those models has given a review of that purpose, or was lost with it."""
        return self.complete or all(
            any(kept.purpose == purpose and _is_by(kept, settings) for kept in self._reviews)
            for settings in models
        )

    def keep(self, reviews: Iterable[Proposal], used: set[int]) -> None:
        """Keep reviews, lost ones among them, that have served the turn itself; see `find`."""
        added = [
            replace(review, reasoning="", citations=())
            for review in reviews
            if review.error is None or (self.settled and review.error.kind not in _CUT_OFF)
        ]
        used.update(range(len(self._reviews), len(self._reviews) + len(added)))
        self._reviews += added
        self._grown(added)


def _is_by(kept: Proposal, settings: ModelSettings) -> bool:
    """Whether a review is by that model, or by one that answers in its place."""
    return kept.model in (*settings.candidates, settings.hedge_with)
