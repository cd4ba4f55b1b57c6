"""Choices that were made: `moa compare list`, `show`, `export` and `delete`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from moa_cli.core.conversation import Usage
from moa_cli.store.comparisons import ComparedTexts, Comparison, Contender
from tests.support.command import Moa
from tests.support.kept import open_store


def database(moa: Moa) -> Path:
    return moa.state.parent / "data" / "conversations.db"


def contenders(*arms: str) -> tuple[Contender, ...]:
    return tuple(Contender(arm, "one", "5e77", Usage(calls=1, cost=0.5), 2.0) for arm in arms)


TEXTS = ComparedTexts("who?", ("Said by melons.", "Said by melons.", "\x1b]0;x\x07Kiwis."))
BEFORE = (("user", "first of all"), ("assistant", "yes?"))


@pytest.fixture
def moa(moa: Moa) -> Moa:
    """With three choices: a shared win with a note and all texts, a tie, and none good."""
    arms = contenders("mixture", "single:a", "single:b")
    store = open_store(database(moa))
    store.comparisons.add(Comparison(1e9, arms, 0, (0, 0, 1), note="shorter", texts=TEXTS))
    store.comparisons.add(Comparison(1.1e9, arms[:2], None))
    asked = ComparedTexts("and now?", ("Plums.", "Pears."), BEFORE)
    store.comparisons.add(Comparison(1.2e9, arms[1:], None, none_good=True, texts=asked))
    store.close()
    return moa


def test_choices_are_listed_with_their_notes(moa: Moa) -> None:
    ran = moa.run("compare", "list")
    assert ran.code == 0, ran.err
    head, *rows = ran.text.splitlines()
    assert head.split() == ["id", "when", "chosen", "of", "note", "prompt"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert "none good" in rows[0]
    assert "tie" in rows[1]
    assert all(words in rows[2] for words in ("mixture, single:a", "shorter", "who?"))
    [latest] = json.loads(moa.run("compare", "list", "-n", "1", "--json").out)
    assert (latest["id"], latest["outcome"]) == (3, "none good")
    assert "prompt" not in latest
    assert moa.run("compare", "list", "--since", "1h").err == "moa: there are no choices yet\n"


def test_a_choice_is_shown_with_its_words(moa: Moa) -> None:
    ran = moa.run("compare", "show", "1")
    assert ran.code == 0, ran.err
    assert ran.text.count("Said by melons.") == 1
    assert "── A, B ──\nSaid by melons." in ran.text
    assert "── C ──\nKiwis." in ran.text
    assert "\x1b" not in ran.text
    assert ran.text.endswith("note: shorter\n")
    told = json.loads(moa.run("compare", "show", "3", "--json").out)
    assert told["prompt"] == "and now?"
    assert told["before"][0] == {"role": "user", "content": "first of all"}
    assert [answer["text"] for answer in told["answers"]] == ["Plums.", "Pears."]
    assert "(prompt and answers were not kept)" in moa.run("compare", "show", "2").text
    ran = moa.run("compare", "show", "4")
    assert (ran.code, ran.err) == (
        1,
        "moa: there is no choice 4 (`moa compare list` lists them)\n",
    )


def test_an_export_holds_what_was_kept_and_is_its_owner_s(moa: Moa) -> None:
    ran = moa.run("compare", "export", "-o", "choices.jsonl")
    assert (ran.code, ran.out) == (0, b""), ran.err
    file = moa.folder / "choices.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    rows = list(map(json.loads, file.read_text("utf-8").splitlines()))
    assert [(row["id"], row["outcome"], row["note"]) for row in rows] == [
        (1, "A, B", "shorter"),
        (2, "tie", ""),
        (3, "none good", ""),
    ]
    assert [answer["chosen"] for answer in rows[0]["answers"]] == [True, True, False]
    assert (rows[1]["prompt"], rows[2]["prompt"]) == (None, "and now?")
    assert moa.run("compare", "export").out == file.read_bytes()
    ran = moa.run("compare", "export", "-o", "choices.jsonl")
    assert ran.code == 2
    assert "--force" in ran.err


def test_choices_of_a_version_that_kept_only_numbers_are_read(moa: Moa) -> None:
    with closing(sqlite3.connect(database(moa))) as connection, connection:
        connection.execute("DROP TABLE comparison_words")
        connection.execute("PRAGMA user_version = 10")
    connection.close()
    listed = json.loads(moa.run("compare", "list", "--json").out)
    assert [(row["outcome"], row["note"]) for row in listed] == [
        ("tie", ""),
        ("tie", ""),
        ("A", ""),
    ]
    rows = json.loads(moa.run("compare", "--results", "--json").out)
    assert [row["compared"] for row in rows if row["arm"] == "mixture"] == [2]
    assert "(prompt and answers were not kept)" in moa.run("compare", "show", "1").text


def test_texts_are_deleted_and_the_choices_stay(moa: Moa) -> None:
    results = moa.run("compare", "--results", "--json").out
    file = database(moa)
    assert b"melons" in file.read_bytes()
    ran = moa.run("compare", "delete", "--all", "--texts", "-y")
    assert ran.err == "moa: deleted prompts and answers of 2 choices\n"
    held = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    assert b"melons" not in held
    assert b"first of all" not in held
    assert moa.run("compare", "--results", "--json").out == results
    assert "shorter" in moa.run("compare", "list").text
    ran = moa.run("compare", "delete", "--all", "--texts", "-y")
    assert (ran.code, ran.err) == (0, "moa: nothing to delete\n")


def test_choices_are_deleted(moa: Moa) -> None:
    ran = moa.run("compare", "delete", "2")
    assert ran.code == 2
    assert "pass --yes" in ran.err
    for arguments in ([], ["1", "--all"], ["--all", "--older-than", "1d"]):
        ran = moa.run("compare", "delete", *arguments, "-y")
        assert (ran.code, "in one way only" in ran.err) == (2, True)
    assert moa.run("compare", "delete", "7", "-y").code == 1
    assert moa.run("compare", "delete", "1", "3", "-y").code == 0
    assert b"shorter" not in database(moa).read_bytes()
    assert [row["id"] for row in json.loads(moa.run("compare", "list", "--json").out)] == [2]
    assert moa.run("compare", "delete", "--older-than", "30d", "-y").code == 0
    assert json.loads(moa.run("compare", "list", "--json").out) == []


def test_a_prompt_that_is_the_name_of_a_command_goes_after_two_dashes(moa: Moa) -> None:
    with moa.terminal("compare", "--profiles", "lab", "--", "list", columns=100) as terminal:
        assert terminal.wait() == 2
        assert "there must be at least two different arms" in "\n".join(terminal.lines())


def test_history_delete_leaves_them_and_says_so(moa: Moa) -> None:
    ran = moa.run("history", "delete", "--all", "-y")
    assert "prompts and answers of 2 choices are kept" in ran.err
    assert "`moa compare delete --texts --all`" in ran.err
    assert moa.run("compare", "show", "1").text.count("melons") == 1
