"""A conversation being held: what is remembered of each turn, what the next one is sent, and
what can be taken back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from moa_cli.chat.session import Session
from moa_cli.core.conversation import Conversation, Proposal, Turn
from moa_cli.core.errors import ProfileError, UsageError
from moa_cli.core.events import AggregatorDelta, Event
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import Limits
from moa_cli.profile import Overrides, Profile
from tests.support.mixtures import InProcess, mixture, pool
from tests.support.talk import sent
from tests.support.upstream import Reply, Upstream

REFUSED = Reply(status=400, error={"error": {"message": "no"}})


def proposals(session: Session) -> list[Proposal]:
    """All proposals of the last turn, layer by layer."""
    layers = session.last.proposals if session.last else ()
    return [proposal for layer in layers for proposal in layer]


def talk(upstream: Upstream, profile: Profile, *prompts: str) -> Session:
    """A session in which these prompts have been asked, one after the other."""

    async def hold() -> Session:
        clients = pool(upstream)
        session = Session(profile, clients, Limits(retries=0))
        try:
            for prompt in prompts:
                session.keep(await deliver(session.ask(prompt)))
        finally:
            await clients.aclose()
        return session

    return asyncio.run(hold())


def empty(profile: Profile | None = None) -> Session:
    """A session that asks nobody."""
    return Session(profile or mixture("a"), InProcess({}), Limits())


def said(session: Session) -> list[tuple[str, str | None]]:
    """Prompts and replies that are remembered."""
    return [(turn.user, turn.reply) for turn in session.conversation.turns]


def test_prompts_and_replies_are_sent_along_and_references_are_not(upstream: Upstream) -> None:
    upstream.always("a", Reply(text="a reference"))
    upstream.enqueue("agg", Reply(text="one"), Reply(text="two"))
    session = talk(upstream, mixture("a"), "first", "second")
    assert said(session) == [("first", "one"), ("second", "two")]
    for model in ("a", "agg"):
        assert sent(upstream, model) == [["first"], ["first", "one", "second"]]


def test_without_multi_turn_each_prompt_stands_alone(upstream: Upstream) -> None:
    session = talk(upstream, mixture("a", multi_turn=False), "first", "second")
    assert sent(upstream, "a") == sent(upstream, "agg") == [["first"], ["second"]]
    assert [prompt for prompt, _ in said(session)] == ["first", "second"]


def test_a_turn_without_a_reply_is_not_remembered(upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="one"), REFUSED, Reply(text="three"))
    session = talk(upstream, mixture("a"), "first", "second", "third")
    assert said(session) == [("first", "one"), ("third", "three")]
    assert sent(upstream, "agg")[-1] == ["first", "one", "third"]


def test_the_last_turn_is_there_to_be_looked_at_even_if_it_failed(upstream: Upstream) -> None:
    upstream.always("b", REFUSED)
    upstream.always("agg", REFUSED)
    session = talk(upstream, mixture("a", "b"), "hi")
    assert session.last is not None
    assert session.last.status == "failed"
    assert [(proposal.proposer, proposal.text) for proposal in proposals(session)] == [
        ("lab:a", "ok"),
        ("lab:b", ""),
    ]


def test_proposals_are_counted_through_the_layers(upstream: Upstream) -> None:
    session = talk(upstream, mixture("a", "b", rounds=2), "hi")
    assert [(proposal.layer, proposal.proposer) for proposal in proposals(session)] == [
        (1, "lab:a"),
        (1, "lab:b"),
        (2, "lab:a"),
        (2, "lab:b"),
    ]


def test_what_came_of_an_interrupted_reply_is_remembered(upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(chunks=["Half ", "of ", "it"], stall_after=2))

    async def hold() -> Session:
        clients = pool(upstream)
        session = Session(mixture("a"), clients, Limits())
        fold = TurnFold()
        async with aclosing(session.ask("hi")) as events:
            async for event in events:
                fold.handle(event)
                if heard(event) == "of ":
                    break
        fold.close()
        session.keep(fold.turn())
        await clients.aclose()
        return session

    session = asyncio.run(hold())
    assert said(session) == [("hi", "Half of ")]
    assert session.last is not None
    assert session.last.status == "interrupted"
    upstream.wait_for(lambda: upstream.open_connections == 0)


def heard(event: Event) -> str:
    """The piece of the reply in an event."""
    return event.text if isinstance(event, AggregatorDelta) else ""


def test_keep_tells_whether_the_turn_is_remembered() -> None:
    session = empty()
    assert session.keep(Turn(user="a", reply="b", status="finished"))
    assert session.keep(Turn(user="a", reply="b", status="interrupted"))
    assert not session.keep(Turn(user="a", status="failed"))
    assert not session.keep(Turn(user="a", reply="", status="interrupted"))
    assert len(session.conversation.turns) == 2


def test_undo_forgets_the_last_turn_then_the_one_before() -> None:
    session = empty()
    first, second = Turn(user="1", reply="one"), Turn(user="2", reply="two")
    session.keep(first)
    session.keep(second)
    assert [session.undo(), session.last] == [second, first]
    assert [session.undo(), session.last] == [first, None]
    with pytest.raises(UsageError, match="no turn to undo"):
        session.undo()


def test_undo_after_a_message_without_a_reply_forgets_that_message_alone() -> None:
    session = empty()
    first, failed = Turn(user="1", reply="one"), Turn(user="2", status="failed")
    session.keep(first)
    session.keep(failed)
    assert [session.undo(), session.last, session.replaced] == [failed, first, (failed,)]
    assert said(session) == [("1", "one")]
    assert [session.undo(), session.last, session.replaced] == [first, None, (first,)]


def test_undo_after_a_new_try_without_a_reply_forgets_both() -> None:
    session = empty()
    first = Turn(user="1", reply="one")
    proposal = Proposal(layer=1, index=0, proposer="a", model="lab:a", text="from a")
    attempt = Turn(user="1", status="failed", proposals=((proposal,),))
    session.keep(first)
    session.take_back()
    session.keep(attempt)
    assert session.last == attempt
    assert [session.undo(), session.last, session.replaced] == [first, None, (first, attempt)]
    session.keep(Turn(user="2", reply="two"))
    assert said(session) == [("2", "two")]


def test_clear_forgets_all() -> None:
    session = empty()
    session.keep(Turn(user="1", reply="one"))
    session.go_on(Conversation())
    assert (said(session), session.last, proposals(session)) == ([], None, [])
    with pytest.raises(UsageError, match="there is no prompt to ask again"):
        session.take_back()


def test_a_turn_that_is_asked_again_is_replaced() -> None:
    session = empty()
    session.keep(Turn(user="1", reply="one"))
    session.keep(Turn(user="2", reply="two"))
    assert session.take_back() == "2"
    assert said(session) == [("1", "one")]
    session.keep(Turn(user="2", reply="better"))
    assert said(session) == [("1", "one"), ("2", "better")]


def test_a_turn_that_is_asked_again_in_vain_is_still_there() -> None:
    session = empty()
    first = Turn(user="1", reply="one")
    session.keep(first)
    for _ in range(2):
        assert session.take_back() == "1"
        assert not session.keep(Turn(user="1", status="failed"))
        assert said(session) == [("1", "one")]
        assert session.last is first


def test_a_failed_turn_can_be_asked_again_and_replaces_nothing() -> None:
    session = empty()
    session.keep(Turn(user="1", reply="one"))
    session.keep(Turn(user="2", status="failed"))
    assert session.take_back() == "2"
    session.keep(Turn(user="2", reply="two"))
    assert said(session) == [("1", "one"), ("2", "two")]


def test_a_change_holds_from_the_next_turn_and_says_where_it_came_from(upstream: Upstream) -> None:
    session = talk(upstream, mixture("a"))
    session.change(Overrides(rounds=2, temperature=0.0), "/rounds")
    assert (session.profile.rounds, session.profile.temperature) == (2, 0.0)
    assert str(session.profile.origins[("rounds",)]) == "/rounds"


@pytest.mark.parametrize(
    "overrides",
    [
        Overrides(rounds=-1),
        Overrides(temperature=9),
        Overrides(max_tokens=0),
        Overrides(aggregator=" "),
        Overrides(reference_models=("a b",)),
    ],
)
def test_a_change_to_something_impossible_changes_nothing(overrides: Overrides) -> None:
    session = empty()
    before = session.profile
    with pytest.raises(ProfileError):
        session.change(overrides, "/set")
    assert session.profile is before
