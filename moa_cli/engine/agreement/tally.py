"""Counts the final answers of proposals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from moa_cli.core.conversation import Proposal
from moa_cli.core.outcomes import cut_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import Placing
from moa_cli.core.text import are, plural
from moa_cli.engine.prompts import text_of

# A summary names at most this many answers, each with at most this many characters.
_MOST_NAMED, _LONGEST_NAME = 4, 40


@dataclass
class TalliedAnswer:
    """A final answer that one or more proposals give.

    answer: in the words of the first of these proposals. places: the places of these proposals
    among all proposals.
    """

    answer: str
    places: list[int] = field(default_factory=list)

    @property
    def votes(self) -> int:
        """How many proposals give it."""
        return len(self.places)


@dataclass(frozen=True)
class Tally:
    """The final answers of proposals, counted.

    candidates: the answer with the most votes first; with as many votes, the answer that was given
    first. unreadable: the number of proposals that break off, or whose final answer cannot be read.
    """

    candidates: tuple[TalliedAnswer, ...]
    unreadable: int

    @property
    def agreed(self) -> bool:
        """Whether there are several proposals, and all give the same final answer."""
        return not self.unreadable and len(self.candidates) == 1 and self.candidates[0].votes > 1

    def placings(self, found: Sequence[Proposal]) -> tuple[Placing, ...]:
        """The placing of each counted proposal, the best first. found: the counted proposals."""
        placings = [
            Placing(found[place].proposer, found[place].index, candidate.answer, candidate.votes)
            for candidate in self.candidates
            for place in candidate.places
        ]
        read = {place for candidate in self.candidates for place in candidate.places}
        unread = (proposal for place, proposal in enumerate(found) if place not in read)
        placings += [Placing(proposal.proposer, proposal.index) for proposal in unread]
        return tuple(placings)

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        count = sum(candidate.votes for candidate in self.candidates) + self.unreadable
        first, *others = self.candidates
        if first.votes == count > 1:
            return f"{'both' if count == 2 else f'all {count}'} answer {_named(first)}"
        told = [f"{first.votes} of {count} {_verb(first.votes)} {_named(first)}"]
        for candidate in others[: _MOST_NAMED - 1]:
            told.append(f"{candidate.votes} {_verb(candidate.votes)} {_named(candidate)}")
        left = sum(candidate.votes for candidate in others[_MOST_NAMED - 1 :])
        if left:
            told.append(f"{left} {_verb(left)} otherwise")
        summary = ", ".join(told)
        if others and others[0].votes == first.votes:
            summary += ": a tie, decided for the first in the profile"
        if self.unreadable:
            unread = self.unreadable
            summary += f"; {plural(unread, 'answer')} {are(unread)} unreadable"
        return summary


def tally(found: Sequence[Proposal], rule: str) -> Tally:
    """Count the final answers of proposals. rule: how they are read, see `Profile.final_answer`.

    A proposal that breaks off does not vote: its last number need not be its final answer.
    """
    # Imported here because compiling the module's patterns would slow down the start of commands.
    from moa_cli.core.answers.final import answer_key, final_answers

    whole = [place for place, proposal in enumerate(found) if cut_of(proposal) is None]
    candidates: dict[Hashable, TalliedAnswer] = {}
    answers = final_answers([text_of(found[place]) for place in whole], rule)
    for place, answer in zip(whole, answers, strict=True):
        if answer is not None:
            candidates.setdefault(answer_key(answer), TalliedAnswer(answer)).places.append(place)
    ranked = sorted(candidates.values(), key=lambda candidate: -candidate.votes)
    readable = sum(candidate.votes for candidate in ranked)
    return Tally(tuple(ranked), len(found) - readable)


def _named(candidate: TalliedAnswer) -> str:
    return one_line(candidate.answer, _LONGEST_NAME)


def _verb(count: int) -> str:
    return "answers" if count == 1 else "answer"
