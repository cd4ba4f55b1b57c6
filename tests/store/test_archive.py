"""What is kept can be exported and comes back equal, to the byte; what is no export is refused
in one line, and nothing of it is taken in."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.conversation import Failure, KeptConversation, Proposal, Turn, TurnStatus, Usage
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.events import AggregatorFailed, Retrying, to_dict
from moa_cli.core.text import dumps
from moa_cli.store.archive import read, text_of
from moa_cli.store.incoming.take import ImportResult, take
from moa_cli.store.store import Store
from tests.support.kept import open_store
from tests.support.recording import events, record
from tests.support.values import values_of

ODD = (
    "nul \0 esc \x1b[31m cr \r crlf \r\n c1 \x9b bidi \u202e\u2066 \u2028\u2029 bom \ufeff"
    " </script> ```` ~~~ 😀 \U000e0041 \ud83d '\"\\ \U0010ffff"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "one" / "conversations.db")
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "two" / "conversations.db")
    yield opened
    opened.close()


def add(store: Store, content: bytes) -> ImportResult:
    """Import a file of that content."""
    (took,) = take(store, ["-"], io.BytesIO(content))
    return took


def check(content: bytes) -> int:
    """Read a file of that content; how many conversations it would give to an empty store."""
    with TemporaryDirectory() as folder:
        empty = open_store(Path(folder, "c.db"))
        try:
            (took,) = take(empty, ["-"], io.BytesIO(content), dry_run=True)
            assert empty.conversations() == []
            return len(took.new)
        finally:
            empty.close()


def exported(store: Store) -> bytes:
    return "".join(text_of(read(store))).encode()


def contents(store: Store) -> list[KeptConversation]:
    """All that is kept, without the numbers that rows happen to have."""

    def bare(kept: KeptConversation) -> KeptConversation:
        turns = [
            dataclasses.replace(kept, turn=dataclasses.replace(kept.turn, stored_as=None))
            for kept in kept.turns
        ]
        return dataclasses.replace(kept, turns=tuple(turns))

    return [bare(conversation) for conversation in read(store)]


def amounts(value: Any) -> Any:
    """The value with numbers that can be tokens, dollars or seconds."""
    if isinstance(value, tuple):
        return tuple(map(amounts, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) % 10**7
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{key: amounts(item) for key, item in vars(value).items()}
        )
    return value


TEXT = st.text() | st.lists(st.sampled_from(ODD.split(" ")), max_size=9).map(" ".join)
HINTS = {key: hint for key, hint in get_type_hints(Turn).items() if key != "stored_as"}
LAYERS = st.lists(st.lists(values_of(Proposal), max_size=3), max_size=3).map(
    lambda layers: tuple(
        tuple(
            dataclasses.replace(each_proposal, layer=layer, index=place)
            for place, each_proposal in enumerate(proposals)
        )
        for layer, proposals in enumerate(layers, 1)
    )
)
TURNS = st.builds(
    Turn,
    **{key: values_of(hint) for key, hint in HINTS.items()}
    | {"user": TEXT, "reply": st.none() | TEXT, "reasoning": TEXT, "proposals": LAYERS},
).map(amounts)
NOTES = st.lists((values_of(Retrying) | values_of(AggregatorFailed)).map(amounts), max_size=2)


def keep(store: Store, turns: list[tuple[Turn, str, list[Any], bool, bool]]) -> None:
    """One conversation, written as a recorder writes it."""
    conversation = store.begin_conversation(turns[0][0].user, "a profile")
    for turn, settings_, notes, withdrawn, ended in turns:
        number = store.begin_turn(conversation, turn.user, turn.profile, settings_)
        for layer in turn.proposals:
            for proposal in layer:
                store.add_proposal(number, proposal)
        for note in notes:
            store.add_note(number, to_dict(note))
        if ended:
            store.end_turn(number, turn)
        if withdrawn:
            store.withdraw(number)


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(TURNS, TEXT, NOTES, st.booleans(), st.booleans()), min_size=1, max_size=3
        ),
        max_size=3,
    )
)
def test_what_is_kept_comes_back_equal_to_the_byte(
    conversations: list[list[tuple[Turn, str, list[Any], bool, bool]]],
) -> None:
    with TemporaryDirectory() as folder:
        store, two = (open_store(Path(folder, name, "c.db")) for name in ("one", "two"))
        for turns in conversations:
            keep(store, turns)
        file = exported(store)
        done = add(two, file)
        assert len(done.new) == len(conversations)
        assert exported(two) == file
        assert contents(two) == [
            dataclasses.replace(
                conversation,
                turns=tuple(
                    dataclasses.replace(kept, turn=interrupted(kept.turn))
                    for kept in conversation.turns
                ),
            )
            for conversation in contents(store)
        ]
        # Turns that run on are interrupted in a file; for the rest, nothing is new.
        assert not add(store, file).new
        store.close()
        two.close()


def interrupted(turn: Turn) -> Turn:
    status: TurnStatus = "interrupted" if turn.status == "open" else turn.status
    return dataclasses.replace(turn, status=status)


def test_a_file_is_plain_json_in_readable_text_that_acts_on_no_terminal(store: Store) -> None:
    record(store, events("größe 漢字 😀 \x9b2J\u202e", ODD))
    text = exported(store).decode()
    assert "größe 漢字 😀 \\u009b2J\\u202e" in text
    assert text == dumps(json.loads(text), indent=2) + "\n"
    (conversation,) = json.loads(text)["conversations"]
    assert list(conversation) == ["id", "title", "profile", "created", "updated", "turns"]
    (turn,) = conversation["turns"]
    assert (turn["prompt"], turn["settings"]) == ("größe 漢字 😀 \x9b2J\u202e", "rounds = 1")
    assert turn["reply"] == ODD.replace("\ud83d", "?")
    assert [note["kind"] for note in turn["notes"]] == ["retrying"]
    assert [[proposer["model"] for proposer in layer] for layer in turn["proposals"]] == [
        ["lab:a", "lab:b"]
    ]
    # Some are only there where they have something to tell.
    without = {"user", "stored_as", "citations", "parts", "speaker", "reused"}
    without |= {"tool_calls", "token_logprobs", "reviews", "decision", "report", "summary_so_far"}
    without |= {"asks_again"}
    assert set(turn) >= {field.name for field in dataclasses.fields(Turn)} - without


def test_an_empty_store_makes_an_empty_file(store: Store, other: Store) -> None:
    file = exported(store)
    assert json.loads(file)["conversations"] == []
    assert (add(other, file).new, exported(other)) == ([], file)


def test_numbers_come_back_exactly(store: Store, other: Store) -> None:
    usage = Usage(10**9, 2**29 + 1, 0, 1, 1, 7, cost=1e-9)
    numbers = (0.1 + 0.2, 5e-324, 999_999_999.9999999, -0.0, 3)
    turns = [Turn(user="n", seconds=number, usage=usage) for number in numbers]
    keep(store, [(turn, "", [], False, True) for turn in turns])
    file = exported(store)
    assert not add(other, file).left
    assert exported(other) == file


@pytest.mark.parametrize(
    "number", [math.nan, math.inf, -math.inf, 1e308, -1.0, 10**9 + 1, -(10**9)]
)
def test_what_is_no_amount_counts_as_0_and_is_told(store: Store, number: float) -> None:
    usage = {"cost": number, "prompt_tokens": 10**400, "calls": -1, "completion_tokens": 7}
    values = minimal()
    turn = values["conversations"][0]["turns"][0]
    charge = {"layer": 1, "model": "m", "usage": usage}
    retry = {"kind": "retrying", "layer": 1, "index": 0, "model": "m", "attempt": 2}
    note = retry | {"delay": number, "error": {"kind": "X", "message": "y"}}
    turn |= {"usage": usage, "seconds": number, "ledger": [charge], "notes": [note]}
    turn["proposals"][0][0] |= {"usage": usage, "seconds": number, "first_token": number}
    took = add(store, json.dumps(values).encode())
    (conversation,) = read(store)
    (kept,) = conversation.turns
    bounded = Usage(completion_tokens=7)
    assert (kept.turn.usage, kept.turn.ledger[0].usage) == (bounded, bounded)
    assert (kept.turn.seconds, kept.turn.proposals[0][0].first_token) == (0.0, 0.0)
    assert (kept.turn.proposals[0][0].usage, kept.notes[0]["delay"]) == (bounded, 0.0)
    assert took.left == {"number out of bounds (taken as 0)": 13}
    assert store.usage("2345678923") == bounded
    assert add(store, json.dumps(values).encode()).same == ["2345678923"]


def test_a_time_in_the_future_is_now_so_that_the_next_turn_is_the_latest(store: Store) -> None:
    values = minimal()
    values["conversations"][0] |= {"created": 2e11, "updated": 2e11}
    before = time.time()
    took = add(store, json.dumps(values).encode())
    (conversation,) = read(store)
    assert before <= conversation.created <= time.time()
    assert took.left == {"time in the future (taken as now)": 2}
    assert add(store, json.dumps(values).encode()).same == ["2345678923"]
    later = record(store, events("later")).conversation
    assert store.latest() == later


def test_a_turn_that_was_taken_back_is_left_out(store: Store) -> None:
    keep(store, [(Turn(user=word), "", [], word == "two", True) for word in ("one", "two")])
    (conversation,) = json.loads(exported(store))["conversations"]
    assert [turn["prompt"] for turn in conversation["turns"]] == ["one"]


def test_conversations_can_be_chosen_and_stand_in_the_order_in_which_they_began(
    store: Store,
) -> None:
    ids = [str(record(store, events(word)).conversation) for word in ("one", "two", "three")]
    assert [conversation.id for conversation in read(store, [ids[2], ids[0]])] == [ids[0], ids[2]]
    assert [conversation.id for conversation in read(store)] == ids


def test_what_is_there_already_is_skipped_and_what_differs_gets_another_id(
    store: Store, other: Store
) -> None:
    first = record(store, events("one")).conversation
    file = exported(store)
    assert add(other, file).new == [first]
    assert add(other, file).same == [first]
    record(other, events("two"), first)
    ((old, new),) = add(other, file).renamed
    assert old == first
    assert [turn.user for turn in other.load(new).turns] == ["one"]
    # Also under its other id it is there already.
    again = add(other, file)
    assert (again.new, again.same, again.renamed) == ([], [new], [])
    assert [turn.user for turn in other.load(first or "").turns] == ["one", "two"]


def test_imported_turns_are_found_by_their_words_and_can_be_deleted(
    store: Store, other: Store
) -> None:
    record(store, events("about zebras", "they have stripes"))
    (identity,) = add(other, exported(store)).new
    assert [found.conversation for found in other.search("zebras")] == [identity]
    other.delete([identity])
    assert other.search("zebras") == []


def test_a_turn_that_was_open_is_interrupted(store: Store) -> None:
    values = minimal()
    values["conversations"][0]["turns"][0]["status"] = "open"
    add(store, json.dumps(values).encode())
    (turn,) = store.load("2345678923").turns
    assert turn.status == "interrupted"


def minimal() -> dict[str, Any]:
    turn = {"prompt": "hi", "started": 2, "proposals": [[proposal(1, 0)]]}
    conversation = {
        "id": "2345678923",
        "title": "t",
        "profile": "p",
        "created": 1,
        "updated": 2.5,
        "turns": [turn],
    }
    return {"format": "moa-conversations", "version": 1, "conversations": [conversation]}


def proposal(layer: int, index: int) -> dict[str, Any]:
    return {"layer": layer, "index": index, "proposer": "a", "model": "lab:a", "text": "so"}


def test_fields_with_a_default_may_be_missing_and_half_pairs_are_replaced(store: Store) -> None:
    values = minimal()
    values["conversations"][0]["title"] = "half \ud800 😀"
    done = add(store, json.dumps(values).encode())
    (conversation,) = read(store)
    assert (done.new, conversation.title) == (["2345678923"], "half ? 😀")
    assert conversation.turns[0].turn.proposals == ((Proposal(1, 0, "a", "lab:a", "so"),),)
    assert add(store, json.dumps(values).encode()).same == ["2345678923"]


CONVERSATION: tuple[str | int, ...] = ("conversations", 0)
TURN = (*CONVERSATION, "turns", 0)
PROPOSAL = (*TURN, "proposals", 0, 0)
WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("format",), "another", "not an export of conversations"),
    (("version",), "1", "version is not a whole number"),
    (("version",), 6, "was written by a newer version of moa (format 6)"),
    (("conversations",), {}, "conversations is not a list"),
    (CONVERSATION, 5, "conversation 1 has no id"),
    ((*CONVERSATION, "id"), "../../etc", "conversation 1 has no id"),
    ((*CONVERSATION, "title"), None, "conversation 2345678923: title is not text"),
    ((*CONVERSATION, "created"), "now", "conversation 2345678923: created is not a number"),
    ((*CONVERSATION, "created"), math.nan, "2345678923: created is not a time"),
    ((*CONVERSATION, "updated"), 10**40, "2345678923: updated is not a time"),
    ((*CONVERSATION, "colour"), 1, "2345678923: unknown key 'colour'"),
    ((*CONVERSATION, "turns"), "x", "2345678923: turns is not a list"),
    (TURN, [], "2345678923: turn 1: not a table"),
    ((*TURN, "prompt"), 1, "turn 1: prompt is not text"),
    ((*TURN, "started"), True, "turn 1: started is not a number"),
    ((*TURN, "reply"), 1, "turn 1: reply is not text"),
    ((*TURN, "status"), "done", "turn 1: status is none of open, finished"),
    ((*TURN, "seconds"), 10**400, "turn 1: seconds is not a number"),
    ((*TURN, "usage"), {"calls": 1.5}, "turn 1: calls is not a whole number"),
    ((*TURN, "usage"), None, "turn 1: Usage: not a table"),
    ((*TURN, "lost"), "x", "turn 1: Turn: not a list"),
    ((*TURN, "lost"), [1], "turn 1: lost is not text"),
    ((*TURN, "colour"), 1, "turn 1: Turn has no colour"),
    ((*TURN, "stored_as"), 1, "turn 1: Turn has no stored_as"),
    ((*TURN, "error"), {"kind": "X"}, "turn 1: Failure lacks message"),
    ((*TURN, "notes"), {}, "turn 1: notes is not a list"),
    ((*TURN, "notes"), [1], "turn 1: a note is not a table"),
    ((*TURN, "notes"), [{"kind": "x"}], "turn 1: not an event"),
    ((*TURN, "proposals"), [proposal(1, 0)], "turn 1: Turn: not a list"),
    ((*TURN, "proposals"), [[proposal(1, 0)] * 2], "two proposals have the same layer and index"),
    ((*PROPOSAL, "layer"), 2**63, "layer or index is out of range"),
    ((*PROPOSAL, "text"), None, "turn 1: text is not text"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_broken_file_is_refused_with_its_name_and_the_place(
    place: tuple[str | int, ...], value: Any, message: str
) -> None:
    values: Any = minimal()
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(StoreError) as caught:
        check(json.dumps(values).encode())
    assert caught.value.message.startswith("standard input: ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("key", ["id", "title", "profile", "created", "updated", "turns"])
def test_no_field_of_a_conversation_may_be_missing(key: str) -> None:
    values = minimal()
    del values["conversations"][0][key]
    with pytest.raises(StoreError, match=f"{key} is missing|has no id"):
        check(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON: Expecting value (line 1, column 1)"),
        (b"{\n  nope", "not JSON: Expecting property name enclosed in double quotes (line 2"),
        (b"\xff\xfe", "not JSON: Expecting value (line 1, column 1)"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "a number is too long"),
        (b"[]", "not an export of conversations"),
        (b"null", "not an export of conversations"),
    ],
    ids=["empty", "broken", "nothing but a mark", "deep", "long number", "list", "null"],
)
def test_what_is_no_json_is_told(content: bytes, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        check(content)
    assert message in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_mark_of_the_byte_order_tells_the_encoding(store: Store, encoding: str) -> None:
    values = minimal()
    values["conversations"][0]["title"] = "Gr\xfc\xdfe"
    text = "\ufeff" + json.dumps(values, ensure_ascii=False, indent=2).replace("\n", "\r\n")
    add(store, text.encode(encoding))
    (found,) = read(store)
    assert found.title == "Gr\xfc\xdfe"


def test_an_export_in_another_encoding_is_refused() -> None:
    why = r"^standard input: is not UTF-8 text: byte 7 of line 2 is 0xFC$"
    with pytest.raises(UsageError, match=why):
        check(b'{\n "Gr\xe4\xfc": 1}'.replace(b"\xe4", b"aa"))


def test_an_id_may_be_there_once_only() -> None:
    values = minimal()
    values["conversations"] *= 2
    with pytest.raises(StoreError, match="conversation 2345678923 appears twice"):
        check(json.dumps(values).encode())


def test_a_failure_and_its_causes_survive(store: Store, other: Store) -> None:
    failure = Failure("NotEnoughProposals", "no proposer answered", "wait")
    turn = Turn(
        user="x", status="failed", error=failure, causes=(failure, failure), lost=("a", "b")
    )
    keep(store, [(turn, "", [], False, True)])
    add(other, exported(store))
    assert contents(other) == contents(store)
    assert contents(other)[0].turns[0].turn == turn
