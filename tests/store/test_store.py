"""What was said is kept, comes back equal, and is gone once it is deleted."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from moa_cli.core.conversation import Charge, Failure, Turn, Usage
from moa_cli.core.errors import StoreError
from moa_cli.core.events import (
    ProposerFailed,
    ProposerFinished,
    TurnFailed,
)
from moa_cli.store.archive import StoredTurns
from moa_cli.store.comparisons import Comparison, Contender
from moa_cli.store.recorder import Recorder
from moa_cli.store.store import Store
from tests.support.command import PATIENCE
from tests.support.kept import open_store
from tests.support.recording import GOOD, LOST, RecorderAlone, events, record


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "kept" / "conversations.db")
    yield opened
    opened.close()


def loaded(store: Store, recorder: Recorder) -> tuple[Turn, ...]:
    assert recorder.conversation is not None
    return store.load(recorder.conversation).turns


def test_a_turn_comes_back_as_it_was(store: Store) -> None:
    recorder = record(store, events())
    (turn,) = loaded(store, recorder)
    assert turn == Turn(
        user="why?",
        reply="so.",
        status="finished",
        profile="trio",
        proposals=((GOOD, LOST),),
        model="lab:c",
        answered_by="c-2",
        finish_reason="stop",
        usage=Usage(9, 4, calls=2),
        ledger=(
            Charge(1, "lab:a", GOOD.usage),
            Charge(2, "lab:c", Usage(6, 2, calls=1), "c-2"),
        ),
        seconds=2.5,
        lost=("b: it failed",),
        stored_as=recorder.turn,
    )


def test_turns_of_a_conversation_stay_in_order(store: Store) -> None:
    first = record(store, events("one"))
    record(store, events("two"), first.conversation)
    record(store, events("elsewhere"))
    assert [turn.user for turn in loaded(store, first)] == ["one", "two"]
    latest, other = store.conversations()
    assert (latest.title, latest.turns) == ("elsewhere", 1)
    assert (other.title, other.turns) == ("one", 2)


def test_at_every_event_what_had_ended_is_there(store: Store) -> None:
    for end in range(1, len(events()) + 1):
        recorder = RecorderAlone(store, None, "", lambda text: None)
        for event in events()[:end]:
            recorder.handle(event)
        (turn,) = loaded(store, recorder)
        assert turn.user == "why?"
        assert len([proposer for layer in turn.proposals for proposer in layer]) == sum(
            isinstance(event, ProposerFinished | ProposerFailed) for event in events()[:end]
        )
        assert (turn.reply == "so.") == (end >= 11)


def test_a_cancelled_turn_is_kept_with_what_had_come(store: Store) -> None:
    (turn,) = loaded(store, record(store, events()[:10]))
    assert (turn.status, turn.reply) == ("interrupted", "so.")


def test_a_failed_turn_is_kept_with_its_causes(store: Store) -> None:
    failure = Failure("NotEnoughProposals", "no proposer answered")
    failed = TurnFailed(error=failure, causes=(failure,), usage=Usage(), seconds=1)
    (turn,) = loaded(store, record(store, [*events()[:6], failed]))
    assert (turn.status, turn.reply, turn.error) == ("failed", None, failure)


def test_odd_text_is_kept(store: Store) -> None:
    text = "nul \0, esc \x1b, half \ud800, \u2028 and </script> 😀"
    (turn,) = loaded(store, record(store, events(text, text)))
    assert turn.user == turn.reply == text.replace("\ud800", "?")


def test_search_finds_words_of_prompts_and_replies(store: Store) -> None:
    record(store, events("about zebras", "they have stripes"))
    record(store, events("about horses", "they have none"))
    (hit,) = store.search("zebras stripes") or store.search("zebras")
    assert hit.title == "about zebras"
    assert store.search('"') == store.search("") == []
    assert [found.title for found in store.search("none")] == ["about horses"]


def test_what_was_typed_so_far_matches_words_titles_and_ids(store: Store) -> None:
    zebras = record(store, events("about zebras", "they have stripes")).conversation
    horses = record(store, events("about horses", "they have none")).conversation
    assert zebras is not None
    assert horses is not None
    store.rename(horses, "Pferde ÜBER alles")

    def matching(typed: str) -> list[str]:
        return [conversation.summary.id for conversation in store.matching(typed)]

    assert matching("") == matching("  ") == matching("they ha") == [horses, zebras]
    assert matching("zeb") == matching("stripes they") == matching(zebras[:8]) == [zebras]
    # A word that is ended may still be the beginning or a part of another.
    assert matching("strip ") == matching("tripes") == [zebras]
    assert matching('"') == matching("giraffe") == []
    assert matching("über PFERDE") == [horses]
    (match,) = store.matching("stri")
    assert (match.snippet, match.prompt) == ("they have \x02stripes\x03", "about zebras")
    assert [hit.snippet for hit in store.matching("pferde")] == [""]
    assert len(store.matching("", limit=1)) == 1


def test_words_of_a_withdrawn_turn_are_not_found(store: Store) -> None:
    turn = record(store, events("about zebras")).turn
    assert turn is not None
    store.withdraw(turn)
    assert store.search("zebras") == []
    assert [hit.snippet for hit in store.matching("zebras")] == [""]


def test_a_withdrawn_turn_is_no_part_of_the_conversation(store: Store) -> None:
    first = record(store, events("one"))
    second = record(store, events("two"), first.conversation)
    assert second.turn is not None
    store.withdraw(second.turn)
    assert [turn.user for turn in loaded(store, first)] == ["one"]


def test_a_fork_has_the_same_turns_and_a_life_of_its_own(store: Store) -> None:
    first = record(store, events("one"))
    assert first.conversation is not None
    copy = store.fork(first.conversation)
    record(store, events("two"), copy)
    assert [turn.user for turn in store.load(copy).turns] == ["one", "two"]
    assert store.load(copy).turns[0].proposals == loaded(store, first)[0].proposals
    assert [turn.user for turn in loaded(store, first)] == ["one"]


def test_copies_are_named(store: Store) -> None:
    first = record(store, events("Why?")).conversation
    assert first is not None
    copies = [store.fork(first), store.fork(first)]
    copies.append(store.fork(copies[0]))
    titles = [store.title(copy) for copy in copies]
    assert titles == ["Why? (copy)", "Why? (copy 2)", "Why? (copy 3)"]
    assert store.title(first) == "Why?"
    # The prompt itself is found, and its beginning in a title is no second hit.
    assert {hit.where for hit in store.search("why")} == {"prompt"}
    assert {hit.where for hit in store.search("copy")} == {"title"}
    store.rename(copies[1], "x" * 200)
    assert store.title(store.fork(copies[1])) == "x" * 193 + " (copy)"


def test_the_title_of_a_copy_goes_with_the_turn_that_it_tells(store: Store) -> None:
    first = record(store, events("a secret"))
    assert first.conversation is not None
    copy = store.fork(first.conversation)
    record(store, events("another prompt"), copy)
    store.delete([], store.turn_numbers(copy)[:1])
    assert store.title(copy) == "another prompt (copy)"
    assert store.title(first.conversation) == "a secret"
    assert "a secret" in store.typed([store.fork(first.conversation)])


def test_ids_may_be_shortened_while_they_are_clear(store: Store) -> None:
    identity = record(store, events()).conversation
    assert identity is not None
    assert store.find(identity[:6]) == identity
    for wrong in ("", "zzzzzz0", "%"):
        with pytest.raises(StoreError):
            store.find(wrong)


def test_after_deleting_the_words_are_in_no_file(store: Store, tmp_path: Path) -> None:
    kept = record(store, events("keep the giraffe"))
    gone = record(store, events("forget the xylophone", "the xylophone " * 2000))
    assert gone.conversation is not None
    store.delete([gone.conversation])
    places = (tmp_path / "kept").rglob("*")
    files = [path.read_bytes().lower() for path in places if path.is_file()]
    assert files
    assert not any(b"xylophone" in content for content in files)
    assert [turn.user for turn in loaded(store, kept)] == ["keep the giraffe"]
    assert store.search("xylophone") == []
    assert store.search("giraffe")


def test_only_the_owner_can_read_the_file(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    record(store, events())
    for path in (tmp_path / "kept").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_only_the_owner_can_read_a_file_that_a_link_leads_to(tmp_path: Path) -> None:
    link, target = tmp_path / "conversations.db", tmp_path / "target.db"
    link.symlink_to(target)
    with closing(Store.open(link)) as store:
        record(store, events())
        files = list(tmp_path.glob("target.db*"))
        assert target in files
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_damaged_file_is_put_aside_not_deleted(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    file.write_bytes(b"this is no database" * 500)
    store = open_store(file)
    assert store.damaged is not None
    assert store.damaged.read_bytes().startswith(b"this is no database")
    record(store, events())
    store.close()
    again = open_store(file)
    assert (again.damaged, len(again.conversations())) == (None, 1)
    again.close()


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    Store.open(file).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        open_store(file)
    assert file.exists()


def test_a_store_that_cannot_be_written_costs_a_warning(store: Store) -> None:
    warnings: list[str] = []
    recorder = RecorderAlone(store, None, "", warnings.append)
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store._connection.execute("SELECT 1")
    for event in events():
        recorder.handle(event)
    recorder.close()
    (warning,) = warnings
    assert warning.startswith("this turn is not saved")


WRITER = """
import sys
from tests.support.recording import events, record
from moa_cli.store.store import Store
from pathlib import Path
store = Store.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    record(store, events(f"{sys.argv[3]}-{number}"), alone=False)
store.close()
"""


def test_eight_processes_at_once_lose_no_turn(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), "50", str(n)],
            cwd=Path(__file__).parents[2],
        )
        for n in range(8)
    ]
    assert [writer.wait(2 * PATIENCE) for writer in writers] == [0] * 8
    store = open_store(file)
    titles = {conversation.title for conversation in store.conversations(limit=1000)}
    store.close()
    assert titles == {f"{process}-{number}" for process in range(8) for number in range(50)}


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    # Longer than SQLite itself waits.
    release = threading.Timer(0.6, lambda: other.execute("ROLLBACK"))
    release.start()
    store = open_store(file)
    assert list(store.conversations()) == []
    store.close()
    release.join()
    other.close()


SLOW = """
import os, sys, time
from tests.support.recording import RecorderAlone, events
from moa_cli.store.comparisons import Comparison, Contender
from moa_cli.store.store import Store
from pathlib import Path
store = Store.open(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    recorder = RecorderAlone(store, None, "", print)
    for event in events(f"turn {number}"):
        recorder.handle(event)
    recorder.close()
    print(number, flush=True)
    number += 1
"""


def test_killed_at_any_instant_the_store_is_whole(tmp_path: Path) -> None:
    for attempt in range(25):
        file = tmp_path / f"{attempt}.db"
        with subprocess.Popen(
            [sys.executable, "-c", SLOW, str(file)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.002 * attempt)
            child.kill()
            told = child.stdout.read().split()
        store = open_store(file)
        assert store._connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        turns = [
            turn
            for conversation in store.conversations(limit=10_000)
            for turn in store.load(conversation.id).turns
        ]
        store.close()
        finished = {turn.user for turn in turns if turn.status == "finished"}
        assert finished >= {f"turn {number}" for number in told if number.isdigit()}
        assert all(turn.status in ("finished", "interrupted") for turn in turns)


def test_a_turn_left_open_by_a_process_that_is_gone_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    begin = (
        "import os, sys; from pathlib import Path; from moa_cli.store.store import Store;"
        "store = Store.open(Path(sys.argv[1]));"
        "store.begin_turn(store.begin_conversation('hi', 'p'), 'hi', 'p', '');"
        "print(flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", begin, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    store = open_store(file)
    (conversation,) = (conversation.id for conversation in store.conversations())
    assert store.load(conversation).turns[0].status == "open"
    child.communicate()
    again = open_store(file)
    assert again.load(conversation).turns[0].status == "interrupted"
    assert not any((tmp_path / "running").iterdir())
    store.close()
    again.close()


def test_a_file_from_before_comparisons_gets_their_tables_and_keeps_its_turns(
    tmp_path: Path,
) -> None:
    file = tmp_path / "conversations.db"
    old = open_store(file)
    record(old, events())
    old.close()
    connection = sqlite3.connect(file)
    connection.executescript(
        "DROP TABLE contenders; DROP TABLE comparisons; DROP TABLE tags; DROP TABLE unfinished;"
        "DROP TABLE booked; ALTER TABLE turns DROP COLUMN lease; PRAGMA user_version = 2;"
    )
    connection.close()
    store = open_store(file)
    contender = Contender("mixture", "lab", "1a2b3c4", Usage(calls=2, cost=0.5), 1.25)
    comparison = Comparison(5.0, (contender, replace(contender, profile="other")), 1)
    store.comparisons.add(comparison)
    store.comparisons.add(replace(comparison, when=7.0, winner=None))
    assert store.comparisons.since(6.0) == [replace(comparison, when=7.0, winner=None)]
    assert store.comparisons.since()[0] == comparison
    assert len(store.conversations()) == 1
    store.close()


def test_a_reply_that_is_written_late_takes_back_no_other_message(store: Store) -> None:
    conversation = store.begin_conversation("hi", "p")

    def ask(prompt: str, *, again: bool = False) -> int:
        return store.begin_turn(conversation, prompt, "p", "", asks_again=again)

    for prompt in ("hi", "hi there"):
        store.end_turn(ask(prompt), Turn(prompt, reply="first", status="finished"))
    again = ask("hi there", again=True)
    # The chat has taken back the turn that is replaced, before the reply could be written.
    store.withdraw(again - 1)
    store.end_turn(again, Turn("hi there", reply="second", status="finished"))
    turns = StoredTurns(store, conversation)
    assert [(kept.turn.user, kept.turn.reply) for kept in turns] == [
        ("hi", "first"),
        ("hi there", "second"),
    ]
