"""The strategy `vote`: the final answer of most proposals wins, in the words of one of them.

Where no final answer can be read, a judge chooses the most consistent proposal: universal
self-consistency (arXiv:2311.17311), with the instruction of the paper's appendix, which numbers the
responses from 0.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from moa_cli.core.conversation import Proposal
from moa_cli.core.outcomes import cut_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import Decision, Standing
from moa_cli.core.text import plural
from moa_cli.engine.prompts import text_of, worded
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import copy, decide, judged, proposals, write
from moa_cli.profile import Profile

MOST_CONSISTENT: Final = """\
I have generated the following responses to the question: {prompt}

{references}

Evaluate these responses.
Select the most consistent response based on majority consensus.
Start your answer with "The most consistent response is Response X" (without quotes)."""

_NUMBER: Final = r"[\s*_\"'“‘`#(\[]*(\d{1,4})(?!\w)"
_CHOSEN = re.compile(rf"most\s+consistent\s+response\s+is\W+(?:response)?{_NUMBER}", re.IGNORECASE)
_NAMED = re.compile(rf"\bresponse{_NUMBER}", re.IGNORECASE)
_ALONE = re.compile(r"\W*(\d{1,4})\W*")
# How many answers a summary names, and characters of each.
_MOST_NAMED, _LONGEST_NAME = 4, 40


@dataclass
class Candidate:
    """A final answer that proposals give.

    answer: in the words of the first of them. places: theirs, among all proposals.
    """

    answer: str
    places: list[int] = field(default_factory=list)

    @property
    def votes(self) -> int:
        """How many proposals give it."""
        return len(self.places)


@dataclass(frozen=True)
class Tally:
    """The final answers of proposals.

    candidates: the most votes first, then whose first proposal is the first. unreadable: how many
    proposals have no final answer that could be read, or break off.
    """

    candidates: tuple[Candidate, ...]
    unreadable: int

    @property
    def agreed(self) -> bool:
        """Whether there are several proposals, and all give the same final answer."""
        return not self.unreadable and len(self.candidates) == 1 and self.candidates[0].votes > 1

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
            verb = "is" if self.unreadable == 1 else "are"
            summary += f"; {plural(self.unreadable, 'answer')} {verb} unreadable"
        return summary


def tally(found: Sequence[Proposal], rule: str) -> Tally:
    """The final answers of those proposals, read by that rule of a profile.

    What breaks off before its end does not vote: the number that it ends in may be any.
    """
    # Not where the command begins: its patterns take time.
    from moa_cli.core.final_answer import answer_key, final_answers

    whole = [place for place, proposal in enumerate(found) if cut_of(proposal) is None]
    candidates: dict[Hashable, Candidate] = {}
    answers = final_answers([text_of(found[place]) for place in whole], rule)
    for place, answer in zip(whole, answers, strict=True):
        if answer is not None:
            candidates.setdefault(answer_key(answer), Candidate(answer)).places.append(place)
    ranked = sorted(candidates.values(), key=lambda candidate: -candidate.votes)
    readable = sum(candidate.votes for candidate in ranked)
    return Tally(tuple(ranked), len(found) - readable)


async def vote(state: TurnState) -> bool:
    """Give the first proposal that has the final answer of most. Raises BudgetReached at a cap."""
    found = proposals(state)
    counted = tally(found, state.profile.final_answer)
    if not counted.candidates:
        return await _most_consistent(state, found)
    standings = []
    for candidate in counted.candidates:
        given = candidate.answer, candidate.votes
        standings += [_standing(found[place], *given) for place in candidate.places]
    read = {place for candidate in counted.candidates for place in candidate.places}
    standings += [_standing(proposal) for place, proposal in enumerate(found) if place not in read]
    chosen = found[counted.candidates[0].places[0]]
    decide(state, Decision("vote", counted.summary, tuple(standings), chosen.index))
    return await copy(state, chosen)


async def _most_consistent(state: TurnState, found: Sequence[Proposal]) -> bool:
    """Have a judge choose: there are no final answers to be counted."""
    if len(found) == 1:
        [only] = found
        told = f"{only.proposer} gave the only proposal"
        decide(state, Decision("vote", told, (_standing(only, votes=1),), only.index))
        return await copy(state, only)
    why = f"no final answer can be read from {len(found)} proposals"
    if state.profile.final_answer == "text":
        why = f"{len(found)} proposals are compared as texts"
    read = partial(read_choice, count=len(found))
    answer = await judged(state, "choose", consistency_wording(state.profile), read)
    if answer is None:
        state.lost.append("no choice can be read: the reply is written from all proposals")
        decide(state, Decision("vote", f"{why}, and the judge has not chosen"))
        return await write(state)
    review, place = answer
    chosen = found[place]
    standings = [_standing(proposal, votes=int(proposal is chosen)) for proposal in found]
    standings.sort(key=lambda standing: -standing.votes)
    told = f"{why}: {review.model} finds that of {chosen.proposer} the most consistent"
    decide(state, Decision("vote", told, tuple(standings), chosen.index))
    return await copy(state, chosen)


def consistency_wording(profile: Profile) -> Profile:
    """The prompt of universal self-consistency."""
    return worded(profile, MOST_CONSISTENT, _numbered)


def read_choice(text: str, *, count: int) -> int | None:
    """The place of the response that a judge's answer names; None if it names none, or several.

    text: without reasoning. What counts is the sentence that the instruction asks for, the last
    time that it is there; else the only response that is named, or a number alone. count: how many
    responses there were.
    """
    named = _CHOSEN.findall(text)[-1:]
    if not named:
        alone = _ALONE.fullmatch(text)
        named = [alone[1]] if alone else sorted(set(_NAMED.findall(text)))
    if len(named) != 1 or int(named[0]) >= count:
        return None
    return int(named[0])


def _numbered(texts: Sequence[str]) -> Mapping[str, str]:
    """The responses as the paper's prompt holds them."""
    told = (f"Response {number}: {text}" for number, text in enumerate(texts))
    return {"references": "\n\n".join(told)}


def _standing(proposal: Proposal, answer: str | None = None, votes: int = 0) -> Standing:
    return Standing(proposal.proposer, proposal.index, answer, votes)


def _named(candidate: Candidate) -> str:
    return one_line(candidate.answer, _LONGEST_NAME)


def _verb(count: int) -> str:
    return "answers" if count == 1 else "answer"
