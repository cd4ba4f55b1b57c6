"""The strategy `vote`: the final answer that most proposals give wins. One of these proposals
becomes the reply, word for word.

If no final answer can be read, a judge chooses the most consistent proposal. This is universal
self-consistency (arXiv:2311.17311), with the prompt of the paper's appendix, which numbers the
responses from 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from moa_cli.core.conversation import Proposal
from moa_cli.engine.agreement.tally import tally
from moa_cli.engine.prompts import worded
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import copy, copy_winner, judged, proposals
from moa_cli.profile import Profile

MOST_CONSISTENT: Final = """\
I have generated the following responses to the question: {prompt}

{references}

Evaluate these responses.
Select the most consistent response based on majority consensus.
Start your answer with "The most consistent response is Response X" (without quotes)."""

_NUMBER: Final = r"[\s*_\"'“‘`#(\[]*(\d{1,4})(?!\w)"
# No two neighbouring parts of the pattern match the same character. If they did, the match could
# take quadratic time.
_CHOSEN = re.compile(
    r"most\s+consistent\s+response\s+is\W[\W_]*"
    rf"(?:response{_NUMBER}|(\d{{1,4}})(?!\w))",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"\bresponse{_NUMBER}", re.IGNORECASE)
_ALONE = re.compile(r"\W*(\d{1,4})\W*")


async def vote(state: TurnState) -> bool:
    """Give the first proposal with the winning final answer. Raises BudgetReached at a cap."""
    found = proposals(state)
    counted = tally(found, state.profile.final_answer)
    if not counted.candidates:
        return await _most_consistent(state, found)
    chosen = found[counted.candidates[0].places[0]]
    return await copy(state, chosen, counted.summary, counted.placings(found))


async def _most_consistent(state: TurnState, found: Sequence[Proposal]) -> bool:
    """Have a judge choose, because there are no final answers to count."""
    if len(found) == 1:
        [only] = found
        return await copy_winner(state, found, [1], f"{only.proposer} gave the only proposal")
    why = f"no final answer can be read from {len(found)} proposals"
    if state.profile.final_answer == "text":
        why = f"{len(found)} proposals are compared as texts"
    read = partial(read_choice, count=len(found))
    answer = await judged(state, "choose", consistency_wording(state.profile), read)
    votes = [0] * len(found)
    if answer is None:
        return await copy_winner(state, found, votes, f"{why}, and the judge has not chosen")
    review, place = answer
    votes[place] = 1
    why = f"{why}: {review.model} finds that of {found[place].proposer} the most consistent"
    return await copy_winner(state, found, votes, why)


def consistency_wording(profile: Profile) -> Profile:
    """The profile with the prompt of universal self-consistency."""
    return worded(profile, MOST_CONSISTENT, _numbered)


def read_choice(text: str, *, count: int) -> int | None:
    """The place of the response that a judge's answer names; None if it names none, or several.

    text: without reasoning. The last sentence in the form that the prompt asks for counts. Without
    one, the only response that is named counts, or a number that is the whole text. count: the
    number of responses.
    """
    named = ["".join(numbers) for numbers in _CHOSEN.findall(text)[-1:]]
    if not named:
        alone = _ALONE.fullmatch(text)
        named = [alone[1]] if alone else sorted(set(_NAMED.findall(text)))
    if len(named) != 1 or int(named[0]) >= count:
        return None
    return int(named[0])


def _numbered(texts: Sequence[str]) -> Mapping[str, str]:
    """The value of the placeholder for the responses, in the form of the paper's prompt."""
    told = (f"Response {number}: {text}" for number, text in enumerate(texts))
    return {"references": "\n\n".join(told)}
