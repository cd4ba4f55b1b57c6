"""What is told of a turn before it begins is what it asks: as many calls, by the same models, with
the same prompts, whatever the strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moa_cli.engine.forecast import forecast_turn, foretold_stages, planned_stages
from moa_cli.profile import Profile, RouteStage
from tests.support.mixtures import asked, mixture
from tests.support.strategies import ONE_BY_ONE, sent, turned
from tests.support.upstream import Reply, Request, Upstream

# The judge is another model than the aggregator, so that their calls are told apart.
JUDGED: dict[str, Any] = {"judge": "lab:judge"}
PROFILES = {
    "synthesize": mixture("a", "b"),
    "two rounds of subsets": mixture("a", "b", "c", rounds=2, references=2, shuffle=True),
    "windows": mixture("a", "b", "c", "d", window=2),
    "fusion": mixture("a", "b", strategy="fusion", **JUDGED),
    "fusion in one call": mixture("a", "b", strategy="fusion", one_call=True),
    "select": mixture("a", "b", strategy="select", system="Be brief.", **JUDGED),
    "select by peers": mixture("a", "b", "c", strategy="select", chosen_by="proposers"),
    "vote": mixture("a", "b", "c", strategy="vote", final_answer="text", **JUDGED),
    "council": mixture("a", "b", "c", strategy="council"),
    "council of two": mixture("a", "b", strategy="council"),
    "route": mixture(
        *("a", "b", "c"),
        route=[{"proposers": 1, "verify": True}, {"proposers": 2, "verify": True}],
        **JUDGED,
    ),
    # A file may not say that; in code, nothing of a profile is checked.
    "route over the whole layer": replace(
        mixture("a", "b", **JUDGED), route=(RouteStage(proposers=2, verify=True),)
    ),
    "report": mixture("a", "b", report=True, **JUDGED),
    "fusion with a report": mixture("a", "b", strategy="fusion", report=True, **JUDGED),
}
REVIEWS = {
    "Rank the responses": "Ranking: 2 > 1",
    "Best Model Identifier": "model_2",
    "one JSON object": '{"points": [], "groups": [[1, 2]]}',
    "most consistent response": "The most consistent response is Response 1",
}


def answer(request: Request) -> str:
    """An answer as a dry run shows it, or a review that can be read."""
    said = " ".join(str(message["content"]) for message in request.messages)
    for asked_for, review in REVIEWS.items():
        if asked_for in said:
            return review
    if request.model == "judge":
        return "no"
    if request.model == "agg":
        return f"<merge of layer {3 if '<merge of' in said else 2}>"
    number = 2 if "<answer of" in said else 1
    return f"<answer of lab:{request.model} in round {number}>"


@pytest.mark.parametrize("name", PROFILES)
def test_a_turn_makes_the_calls_that_were_foretold(upstream: Upstream, name: str) -> None:
    profile = PROFILES[name]
    upstream.always("*", Reply(text=answer))
    turned(upstream, profile, limits=ONE_BY_ONE)
    calls = sent(upstream)
    foretold = _foretold(profile)
    assert [model for model, _ in calls] == [model for model, _ in foretold]
    for (_, told), (_, messages) in zip(foretold, calls, strict=True):
        # What a review will say is not known before.
        if not any("<comparison>" in text or "<mean ranks>" in text for text in map(str, told)):
            assert told == messages
    layers = forecast_turn(profile, asked(), {})
    assert sum(layer.usage.calls for layer in layers) == len(calls)


def test_what_a_route_or_an_agreement_may_save_is_not_certain(upstream: Upstream) -> None:
    by_route = mixture("a", "b", "c", rounds=2, route=[{"proposers": 1, "verify": True}], **JUDGED)
    agreeing = mixture("a", "b", rounds=2, stop_when_agreed=0.9, report=True, **JUDGED)
    upstream.always("judge", Reply(text="Verdict: yes"))
    upstream.always("*", Reply(text="It is 42."))
    for profile in (by_route, agreeing):
        certain = [stage for _, stage in foretold_stages(profile) if stage.certain]
        before = len(upstream.chats())
        turned(upstream, profile, limits=ONE_BY_ONE)
        assert sum(len(stage.models) for stage in certain) == len(upstream.chats()) - before


def _foretold(profile: Profile) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (
            settings.model.removeprefix("lab:"),
            [
                {"role": message.role, "content": message.content}
                for message in planned.messages(index, asked())
            ],
        )
        for planned in planned_stages(profile, asked(), shown=True)
        for index, settings in enumerate(planned.stage.models)
    ]
