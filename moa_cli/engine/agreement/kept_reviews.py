"""Reviews that models have already made of the proposals of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from moa_cli.core.conversation import Proposal
from moa_cli.core.strategy import Purpose
from moa_cli.profile import ModelSettings

# Kinds of error that are not the model's fault. The next turn asks for such a lost review again.
_CUT_OFF = ("Abandoned", "BudgetReached")


class KeptReviews:
    """Reviews of proposals, kept for all turns over the same proposals.

    Turns that share an instance ask for reviews under its lock, so that each review is asked for
    once. An instance belongs to one event loop.

    reviews: the reviews that exist already. settled: whether a review that was lost, or that cannot
    be read, is kept too; otherwise it is asked for again. complete: whether no model is asked for
    any more reviews. grown: called with the reviews that are added.
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
        """A kept review by this model about the same question and proposals; None if there is none.

        Its purpose does not matter: a comparison serves as a report. A usable review comes first. A
        lost or unusable one is returned only if reviews are settled.

        settings: the model. about: see `Proposal.about`. usable: whether a review can be used.
        used: the places of the reviews that the turn has used; the place of this one is added. Each
        review is used once, because several samples of one model give several reviews.
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
        """Whether a review with this purpose is kept for each of the models, or no more reviews are
        to be made."""
        return self.complete or all(
            any(kept.purpose == purpose and _is_by(kept, settings) for kept in self._reviews)
            for settings in models
        )

    def keep(self, reviews: Iterable[Proposal], used: set[int]) -> None:
        """Keep the reviews that a turn has made, lost ones too if reviews are settled. Their places
        are added to `used`, as in `find`."""
        added = [
            replace(review, reasoning="", citations=())
            for review in reviews
            if review.error is None or (self.settled and review.error.kind not in _CUT_OFF)
        ]
        used.update(range(len(self._reviews), len(self._reviews) + len(added)))
        self._reviews += added
        self._grown(added)


def _is_by(kept: Proposal, settings: ModelSettings) -> bool:
    """Whether a review is by this model, or by one that may answer in its place."""
    return kept.model in (*settings.candidates, settings.hedge_with)
