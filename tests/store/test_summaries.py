"""Summaries of conversations are kept with a turn: found, wiped and copied with it, and in files of
older versions, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moa_cli.core.errors import StoreError
from moa_cli.store.store import Store
from tests.support.kept import open_store
from tests.support.recording import events, record

WORDS = "We spoke of okapis at length."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    opened = open_store(file)
    yield opened
    opened.close()


def summed_up(store: Store) -> str:
    """A conversation whose only turn has a summary, and its id."""
    identity = record(store, events("why?")).conversation
    assert identity is not None
    [turn] = store.load(identity).turns
    store.rewrite_turn(identity, replace(turn, summary_so_far=WORDS))
    return identity


def found(store: Store, words: str = "okapis") -> list[tuple[str, int | None, str]]:
    return [(hit.conversation, hit.turn, hit.where) for hit in store.search(words)]


def test_a_turn_is_written_again_with_all_that_was_kept_of_it(store: Store) -> None:
    identity = record(store, events("why?")).conversation
    assert identity is not None
    [before] = store.load(identity).turns
    store.rewrite_turn(identity, replace(before, summary_so_far=WORDS))
    assert store.load(identity).turns == (replace(before, summary_so_far=WORDS),)
    assert store.has_summaries()
    assert store.has_summaries([identity])
    store.rewrite_turn(identity, before)
    assert store.load(identity).turns == (before,)
    assert not store.has_summaries()


def test_a_summary_of_a_turn_that_was_taken_back_does_not_count(store: Store) -> None:
    identity = summed_up(store)
    store.withdraw(store.turn_numbers(identity)[-1])
    assert not store.has_summaries([identity])
    assert not store.has_summaries()


def test_a_turn_of_another_conversation_is_not_written(store: Store) -> None:
    identity = summed_up(store)
    [turn] = store.load(identity).turns
    with pytest.raises(StoreError, match="not saved yet, or was deleted"):
        store.rewrite_turn("another000", turn)


def test_a_search_finds_the_words_of_a_summary_and_no_longer_once_it_is_gone(store: Store) -> None:
    identity = summed_up(store)
    assert found(store) == found(store, "okap") == [(identity, 1, "summary")]
    copy = store.fork(identity)
    assert sorted(found(store)) == sorted([(identity, 1, "summary"), (copy, 1, "summary")])
    [turn] = store.load(identity).turns
    assert turn.stored_as is not None
    store.withdraw(turn.stored_as, identity)
    assert found(store) == [(copy, 1, "summary")]
    store.delete([copy])
    assert found(store) == []


def test_a_summary_that_is_taken_away_leaves_no_word_in_the_file(store: Store, file: Path) -> None:
    identity = summed_up(store)
    [turn] = store.load(identity).turns
    store.rewrite_turn(identity, replace(turn, summary_so_far=""))
    store.close()
    left = b"".join(path.read_bytes() for path in file.parent.glob("conversations.db*"))
    assert b"okapis" not in left


def test_a_file_of_an_older_version_is_read_and_gets_the_index(store: Store, file: Path) -> None:
    identity = summed_up(store)
    store.close()
    connection = sqlite3.connect(file)
    connection.executescript("DROP INDEX turns_with_summary; PRAGMA user_version = 9;")
    connection.close()
    again = open_store(file)
    assert found(again) == [(identity, 1, "summary")]
    again.close()
    connection = sqlite3.connect(file)
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM turns WHERE instr(rest, '\"summary_so_far\":') > 0"
    ).fetchall()
    connection.close()
    assert "turns_with_summary" in str(plan)
