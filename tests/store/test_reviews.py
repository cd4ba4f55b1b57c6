"""Reviews, how the strategy decided, and the report are kept with their turn: read back, exported
and imported, shown, searched, and printed as JSON; a turn without them holds no trace of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.core.jsonl import turn_to_dict
from moa_cli.core.text import dumps
from moa_cli.documents.html import page
from moa_cli.documents.markdown import document
from moa_cli.store.archive import read, text_of
from moa_cli.store.incoming.take import take
from moa_cli.store.store import Store
from moa_cli.terminal.transcript import turn_text
from tests.support.command import Moa
from tests.support.kept import database, open_store
from tests.support.recording import record
from tests.support.reviews import REPLY, copied, council, finished, folded, layer, reply, started

PLAIN = [started(), *layer(1, ["x", "y"]), *reply(), finished(3)]


@pytest.fixture
def store(moa: Moa) -> Store:
    """The store of the command."""
    database(moa).parent.mkdir(parents=True, exist_ok=True)
    return open_store(database(moa))


def kept(store: Store, events: list[Event]) -> Turn:
    """The turn, recorded and read back."""
    identity = record(store, events).conversation
    assert identity is not None
    (turn,) = store.load(identity).turns
    return turn


@pytest.mark.parametrize("events", [council(), copied(), PLAIN], ids=["council", "vote", "plain"])
def test_a_turn_comes_back_as_it_was_told(store: Store, events: list[Event]) -> None:
    turn, told = kept(store, events), folded(events)
    for field in ("proposals", "reviews", "decision", "report", "reply", "usage", "ledger", "lost"):
        assert getattr(turn, field) == getattr(told, field), field


def test_an_export_brings_all_of_it_to_another_store(store: Store, tmp_path: Path) -> None:
    turns = [kept(store, events) for events in (council(), copied(), PLAIN)]
    other = open_store(tmp_path / "other.db")
    exported = "".join(text_of(read(store)))
    (took,) = take(other, ["-"], io.BytesIO(exported.encode()))
    assert len(took.new) == 3
    again = "".join(text_of(read(other)))
    assert sorted(again.splitlines()) == sorted(exported.splitlines())
    names = [conversation.id for conversation in other.conversations()]
    found = [turn.decision for name in names for turn in other.load(name).turns]
    assert sorted(map(str, found)) == sorted(str(turn.decision) for turn in turns)


def test_json_holds_them_and_leaves_them_out_where_there_are_none() -> None:
    values = json.loads(dumps(turn_to_dict(folded(council()))))
    assert [review["purpose"] for review in values["reviews"]] == ["rank"] * 3 + ["report"]
    assert values["decision"]["summary"] == "2 of 3 rankings count"
    assert values["decision"]["placings"][0] == {
        "proposer": "b",
        "index": 1,
        "answer": None,
        "votes": 0,
        "rank": 1.0,
    }
    assert values["report"]["points"][0]["proposers"] == ["b"]
    plain = turn_to_dict(folded(PLAIN))
    assert plain.keys().isdisjoint({"reviews", "decision", "report"})
    assert all("purpose" not in answer for layer in plain["proposals"] for answer in layer)


def test_a_transcript_tells_the_decision_and_with_proposals_every_review() -> None:
    turn = folded(council())
    short, whole = turn_text(turn), turn_text(turn, proposals=True)
    decided = "(council: 2 of 3 rankings count; round 2 was not needed: all are alike (3 calls"
    assert decided in short
    assert decided in whole
    assert "first" not in short
    assert "── a (ranking)\n1. first" in whole
    assert "── b (ranking)\nlab:b: status 500" in whole
    assert "1. b: mean rank 1\n2. a: mean rank 1.5\n3. c: mean rank 3\n" in whole
    assert "2 of 3" not in turn_text(folded(PLAIN), proposals=True)
    assert "1. b: answer 42, 2 votes ← the reply" in turn_text(folded(copied()), proposals=True)


def test_documents_hold_reviews_beside_the_proposals(store: Store) -> None:
    record(store, council())
    (conversation,) = read(store)
    short = "".join(document([conversation]))
    whole = "".join(document([conversation], proposals=True))
    assert "*council: 2 of 3 rankings count;" in short
    assert "first" not in short
    assert "<summary>a (ranking): 1.5 s, 5 tokens, $0.0010</summary>" in whole
    assert "1. b: mean rank 1\n" in whole
    web = "".join(page([conversation]))
    assert "3 rankings, 1 report" in web
    assert "<b>a (ranking)</b>" in web
    assert "1. b: mean rank 1<br>" in web
    assert "3 proposals" in web


def test_a_search_finds_reviews_with_the_proposals_only(store: Store, moa: Moa) -> None:
    record(store, council())
    store.close()
    assert moa.run("history", "search", "second").out == b""
    found = moa.run("history", "search", "--proposals", "second")
    assert "ranking of lab:c: 2. [second]" in found.text
    shown = moa.run("history", "show", "--proposals")
    assert "── c (ranking)" in shown.text
    assert REPLY in shown.text
