"""`moa history delete`: what it chooses, what goes with it from the prompt history, and what it
says of that."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from moa_cli.chat.prompt_history import PromptFile
from tests.support.command import Moa, Terminal
from tests.support.kept import database, keep, open_store
from tests.support.talk import at_prompt
from tests.support.upstream import Reply, Upstream


def prompts(moa: Moa) -> list[str]:
    """What stands in the prompt history."""
    return [entry.text for entry in PromptFile(1000, moa.state / "prompt-history").read()]


def typed(moa: Moa, *texts: str, at: float | None = None) -> None:
    """Put prompts into the prompt history. at: seconds since 1970, else now."""
    file = PromptFile(1000, moa.state / "prompt-history")
    for text in texts:
        assert file.add(text)
    if at is not None:
        path = moa.state / "prompt-history"
        now, then = str(datetime.now())[:10], str(datetime.fromtimestamp(at))[:10]
        path.write_text(path.read_text("utf-8").replace(f"# {now}", f"# {then}"), "utf-8")


def age(moa: Moa, identity: str, days: float) -> None:
    """Make a conversation that old."""
    store = open_store(moa.state.parent / "data" / "conversations.db")
    with store.connection(writing=True) as connection:
        then = time.time() - days * 86400
        connection.execute("UPDATE conversations SET updated = ? WHERE id = ?", (then, identity))
    store.close()


def take_back(moa: Moa, identity: str, prompt: str) -> None:
    """A turn of that prompt, which was undone."""
    store = open_store(moa.state.parent / "data" / "conversations.db")
    store.withdraw(store.begin_turn(identity, prompt, "lab", "rounds = 1"))
    store.close()


def titles(moa: Moa) -> list[str]:
    """Of what is kept."""
    return sorted(line.split("  ")[-1] for line in moa.run("history", "list").text.splitlines())


def nowhere(moa: Moa, word: str) -> bool:
    """Whether no file of the user's holds the word."""
    found = [
        path
        for path in Path(moa.environment["HOME"]).rglob("*")
        if path.is_file() and word.encode() in path.read_bytes()
    ]
    return not found


@pytest.fixture
def two(moa: Moa) -> tuple[str, str]:
    """Two conversations, their prompts in the prompt history beside others."""
    plums = keep(moa, ("what are plums?", "fruit"), ("and prunes?", "dried ones"))
    stars = keep(moa, ("//what are stars?".removeprefix("/"), "suns"))
    typed(moa, "what are plums?", " and prunes? ", "//what are stars?", "never sent", "/rounds 2")
    return plums, stars


def test_the_prompts_of_a_conversation_go_with_it(moa: Moa, two: tuple[str, str]) -> None:
    ran = moa.run("history", "delete", two[0], "--yes")
    assert ran.err == "moa: deleted 1 conversation, 2 prompts from the prompt history\n"
    assert prompts(moa) == ["//what are stars?", "never sent", "/rounds 2"]
    assert nowhere(moa, "plums")
    assert nowhere(moa, "prunes")
    assert moa.run("history", "delete", two[1], "-y").code == 0
    assert prompts(moa) == ["never sent", "/rounds 2"]


def test_all_leaves_nothing(moa: Moa, two: tuple[str, str]) -> None:
    take_back(moa, two[0], "a mistake")
    ran = moa.run("history", "delete", "--all", "--yes")
    assert ran.err == "moa: deleted 2 conversations, 5 prompts from the prompt history\n"
    assert moa.run("history", "list").text == ""
    assert not (moa.state / "prompt-history").exists()
    for word in ("plums", "stars", "mistake", "never", "prunes"):
        assert nowhere(moa, word)
    again = moa.run("history", "delete", "--all", "--yes")
    assert (again.code, again.err) == (0, "moa: nothing to delete\n")


def test_by_words(moa: Moa, two: tuple[str, str]) -> None:
    take_back(moa, two[1], "are plums stars?")
    typed(moa, "/dry-run more PLUMS", "plumsy")
    ran = moa.run("history", "delete", "--search", "plums", "--yes")
    said = "1 conversation, 1 undone turn, 3 prompts from the prompt history"
    assert ran.err == f"moa: deleted {said}\n"
    assert titles(moa) == ["/what are stars?"]
    assert prompts(moa) == ["//what are stars?", "never sent", "/rounds 2", "plumsy"]
    nothing = moa.run("history", "delete", "--search", "plums", "--yes")
    assert (nothing.code, nothing.err) == (0, "moa: nothing to delete\n")


def test_words_mean_the_same_in_the_prompt_history_as_in_a_search(moa: Moa) -> None:
    typed(moa, "the blue sky", "the sky is blue", "caf\u00e9 ol\u00e9", "e-mails", "100% sure")
    assert moa.run("history", "delete", "--search", '"blue sky"', "-y").code == 0
    assert prompts(moa) == ["the sky is blue", "caf\u00e9 ol\u00e9", "e-mails", "100% sure"]
    assert moa.run("history", "delete", "--search", "cafe", "-y").code == 0
    assert prompts(moa) == ["the sky is blue", "e-mails", "100% sure"]
    assert moa.run("history", "delete", "--search", '"100%"', "-y").code == 0
    assert prompts(moa) == ["the sky is blue", "e-mails"]
    assert "nothing to delete" in moa.run("history", "delete", "--search", "mail", "-y").err
    assert "nothing to delete" in moa.run("history", "delete", "--search", '""', "-y").err


def test_by_age(moa: Moa) -> None:
    old = keep(moa, ("long ago", "yes"))
    keep(moa, ("just now", "yes"))
    age(moa, old, 40)
    typed(moa, "an old one", at=time.time() - 40 * 86400)
    typed(moa, "long ago", "just now", "new")
    ran = moa.run("history", "delete", "--older-than", "30d", "-y")
    assert ran.err == "moa: deleted 1 conversation, 2 prompts from the prompt history\n"
    assert prompts(moa) == ["just now", "new"]
    assert titles(moa) == ["just now"]


def test_age_is_that_of_the_last_turn_whatever_was_done_since(moa: Moa) -> None:
    old, new = keep(moa, ("long ago", "yes")), keep(moa, ("just now", "yes"))
    age(moa, old, 40)
    assert moa.run("history", "export", "--all", "-o", "all.json").code == 0
    assert moa.run("history", "delete", "--all", "-y").code == 0
    assert moa.run("history", "import", "all.json", "--tag", "kept").code == 0
    assert moa.run("history", "rename", old, "another title").code == 0
    assert moa.run("history", "delete", "--older-than", "30d", "-y").code == 0
    [left] = moa.run("history", "list").text.splitlines()
    assert left.startswith(new)


def test_words_and_age_together_are_narrower(moa: Moa) -> None:
    old = keep(moa, ("plums long ago", "yes"))
    other = keep(moa, ("stars long ago", "yes"))
    keep(moa, ("plums just now", "yes"))
    for identity in (old, other):
        age(moa, identity, 40)
    assert moa.run("history", "delete", "--search", "plums", "--older-than", "30d", "-y").code == 0
    assert titles(moa) == ["plums just now", "stars long ago"]


def test_undone_turns_can_go_alone(moa: Moa, two: tuple[str, str]) -> None:
    for identity, prompt in ((two[0], "oops"), (two[1], "ouch"), (two[1], "/what are stars?")):
        take_back(moa, identity, prompt)
    typed(moa, "oops", "ouch")
    ran = moa.run("history", "delete", "--undone", two[0], "-y")
    assert ran.err == "moa: deleted 1 undone turn, 1 prompt from the prompt history\n"
    assert nowhere(moa, "oops")
    ran = moa.run("history", "delete", "--undone", "-y")
    # A prompt that was asked again still counts.
    assert ran.err == "moa: deleted 2 undone turns, 1 prompt from the prompt history\n"
    assert nowhere(moa, "ouch")
    assert len(titles(moa)) == 2
    assert "//what are stars?" in prompts(moa)


def test_a_title_made_of_an_undone_prompt_goes_with_it(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat", columns=120) as terminal:
        at_prompt(terminal)
        for number, prompt in enumerate(("a secret", "harmless"), 1):
            terminal.send(f"{prompt}\r")
            ended(terminal, number)
            if prompt == "a secret":
                terminal.send("/undo\r")
                terminal.wait_for("deletes it now")
                at_prompt(terminal)
        assert "history delete --undone" in "\n".join(terminal.lines())
    assert titles(moa) == ["a secret"]
    assert moa.run("history", "delete", "--undone", "-y").code == 0
    assert titles(moa) == ["harmless"]
    assert nowhere(moa, "secret")


def ended(terminal: Terminal, turns: int) -> None:
    """Until so many turns were told of."""
    terminal.wait_for(lambda: "\n".join(terminal.lines()).count(" calls, ") == turns)
    at_prompt(terminal)


def test_files_commands_and_system_prompts_of_a_conversation(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "plumbago.txt").write_text("leadwort")
    upstream.always("agg", Reply(text="fine"))
    with moa.terminal("chat", columns=120) as terminal:
        at_prompt(terminal)
        for line, seen in (
            ("/system think of zinnias", "zinnias"),
            ("/set merge_prompt {references} Think of dahlias.", "dahlias"),
            ("/file plumbago.txt", "goes with the next prompt"),
        ):
            terminal.send(f"{line}\r")
            terminal.wait_for(seen)
            at_prompt(terminal)
        terminal.send("which flower?\r")
        ended(terminal, 1)
        terminal.send("/rename about asters\r")
        terminal.wait_for("renamed")
        at_prompt(terminal)
        terminal.send("/rounds 1\r")
        terminal.wait_for("rounds")
    identity = moa.run("history", "list").text.split()[0]
    # What was attached is in no prompt.
    assert "leadwort" not in (moa.state / "prompt-history").read_text("utf-8")
    assert moa.run("history", "delete", identity, "-y").code == 0
    assert prompts(moa) == ["/rounds 1"]
    (moa.folder / "plumbago.txt").unlink()
    for word in ("zinnias", "dahlias", "plumbago", "asters", "flower", "leadwort"):
        assert nowhere(moa, word)


def test_prompts_alone(moa: Moa, two: tuple[str, str]) -> None:
    assert moa.run("history", "delete", "--prompts").code == 2
    ran = moa.run("history", "delete", "--prompts", "--search", "stars", "-y")
    assert ran.err == "moa: deleted 1 prompt from the prompt history\n"
    ran = moa.run("history", "delete", "--prompts", "-y")
    assert ran.err == "moa: deleted 4 prompts from the prompt history\n"
    assert not (moa.state / "prompt-history").exists()
    assert len(titles(moa)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "--older-than", "1d"),
        ("--all", "--search", "x"),
        ("ID", "--all"),
        ("ID", "--search", "x"),
        ("--prompts", "ID"),
        ("--prompts", "--undone"),
        ("--search", " "),
    ],
)
def test_what_makes_no_sense_deletes_nothing(
    moa: Moa, two: tuple[str, str], arguments: tuple[str, ...]
) -> None:
    given = [two[0] if argument == "ID" else argument for argument in arguments]
    ran = moa.run("history", "delete", *given, "--yes")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert len(titles(moa)) == 2
    assert len(prompts(moa)) == 5


def test_the_question_names_what_goes(moa: Moa, two: tuple[str, str]) -> None:
    with moa.terminal("history", "delete", "--search", "plums", columns=100) as terminal:
        terminal.wait_for("Delete 1 conversation, 2 prompts from the prompt history permanently?")
        assert f"{two[0]} · 2 turns · what are plums?" in "\n".join(terminal.lines())
        terminal.send("n\n")
        terminal.wait()
    assert len(titles(moa)) == 2
    assert len(prompts(moa)) == 5


def test_a_prompt_history_that_cannot_be_changed_is_told_of(moa: Moa) -> None:
    identity = keep(moa, ("why?", "so"))
    file = moa.state / "prompt-history"
    file.mkdir(parents=True)
    ran = moa.run("history", "delete", identity, "-y")
    assert ran.code == 1
    assert ran.err.startswith("moa: deleted 1 conversation, but no prompt was deleted from")
    assert str(file) in ran.err
    assert ran.err.count("\n") == 1
    assert titles(moa) == []
    assert moa.run("history", "delete", "--prompts", "-y").code == 1


def test_what_a_kill_left_of_a_rewriting_goes_too(moa: Moa, two: tuple[str, str]) -> None:
    leftover = moa.state / ".prompt-history-a1b2c3d_"
    leftover.write_text("\n# 2024-05-01 10:00:00\n+plumbago\n")
    assert moa.run("history", "delete", two[0], "-y").code == 0
    assert not leftover.exists()


def test_what_was_put_aside_is_told_of(moa: Moa, two: tuple[str, str]) -> None:
    aside = moa.state.parent / "data" / "conversations.db.damaged-1"
    aside.write_bytes(b"plums")
    ran = moa.run("history", "delete", "--all", "-y")
    assert f"may still hold deleted text: {aside}" in ran.err


def test_turns_that_wait_to_be_written_are_told_of(moa: Moa, two: tuple[str, str]) -> None:
    folder = moa.state.parent / "data" / "pending"
    folder.mkdir()
    (folder / "a.jsonl").write_text("written by a newer version\n")
    ran = moa.run("history", "delete", "--all", "-y")
    assert f"may still hold deleted text: {folder}" in ran.err


def test_a_deletion_whose_wiping_fails_is_told_as_one(moa: Moa) -> None:
    """As on a full disk: the conversation is gone from the list, its text not yet from the file."""
    identity = keep(moa, ("what are melons?", "fruit"))
    with closing(sqlite3.connect(database(moa))) as file:
        file.execute(
            "CREATE TRIGGER full BEFORE DELETE ON turns BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    ran = moa.run("history", "delete", identity, "-y")
    assert (ran.code, titles(moa)) == (0, [])
    assert ran.err.splitlines() == [
        "moa: deleted 1 conversation",
        "moa: deleted text is still in the file (no room); to wipe it: `moa history clean`",
    ]
    assert "no room" in moa.run("history", "clean").err
    with closing(sqlite3.connect(database(moa))) as file:
        file.execute("DROP TRIGGER full")
    assert moa.run("history", "clean").code == 0
    assert nowhere(moa, "melons")
