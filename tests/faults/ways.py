"""How a turn with a strategy asks, for turns that meet a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPARISON = (
    '{"points": [{"kind": "consensus", "text": "It is sound.", "responses": [1, 2]}],'
    ' "groups": [[1, 2, 3, 4]]}'
)


@dataclass(frozen=True)
class Way:
    """A strategy, or what else asks models about proposals.

    settings: of the profile. review: what a sound model says about proposals, "" if none is asked;
    purpose: what for. by_members: whether the proposers are asked, and not the judge.
    offers_tools: whether the aggregator is offered tools, so that it acts on the proposal that is
    chosen. writes: whether the aggregator is asked for the reply.
    """

    settings: Mapping[str, Any]
    review: str = ""
    purpose: str = ""
    by_members: bool = False
    offers_tools: bool = False
    writes: bool = True


_SELECT, _VOTE = {"strategy": "select"}, {"strategy": "vote", "final_answer": "text"}
_CONSISTENT = "The most consistent response is Response 1"
WAYS: Mapping[str, Way] = {
    "fusion": Way({"strategy": "fusion"}, COMPARISON, "compare"),
    "fusion in one call": Way({"strategy": "fusion", "one_call": True}),
    "select": Way(_SELECT, "model_2", "choose", writes=False),
    "select by proposers": Way(
        _SELECT | {"chosen_by": "proposers"}, "model_1", "choose", by_members=True, writes=False
    ),
    "select, then act": Way(_SELECT, "model_2", "choose", offers_tools=True),
    "council": Way({"strategy": "council"}, "Ranking: 2 > 1 > 3", "rank", by_members=True),
    "vote": Way(_VOTE, _CONSISTENT, "choose", writes=False),
    "route": Way({"route": [{"proposers": 1, "verify": True}]}, "Verdict: no", "verify"),
    "report": Way({"report": True}, COMPARISON, "report"),
    "window": Way({"window": 3}),
}
