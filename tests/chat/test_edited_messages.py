"""Earlier messages of a conversation come back by Up, and are edited in a copy; what was said stays
as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa_cli.chat.earlier_messages import Recalled, recalled
from tests.support.attached import PNG
from tests.support.command import Moa, Terminal
from tests.support.kept import keep
from tests.support.talk import Talk, at_empty_prompt, at_prompt, sent
from tests.support.upstream import Reply, Upstream

UP, END = "\x1b[A", "\x05"
CHOICE = "Enter sends a new message · e edits message {} in a copy · Esc goes back:"


@pytest.fixture
def three(moa: Moa, upstream: Upstream) -> Moa:
    """A conversation with three turns."""
    moa.profile("lab", "a", "b")
    keep(moa, ("one", "1"), ("two", "2"), ("three", "3"))
    return moa


def prompts(moa: Moa) -> dict[str, list[str]]:
    """The prompts of each conversation by its id, the latest first."""
    listed: list[dict[str, Any]] = json.loads(moa.run("history", "list", "--json").text)
    return {
        str(row["id"]): [
            str(turn["prompt"])
            for turn in json.loads(moa.run("history", "show", row["id"], "--json").text)["turns"]
        ]
        for row in listed
    }


def in_line(terminal: Terminal, text: str) -> None:
    """Until this text stands in the line."""

    def ready() -> bool:
        answered = terminal.has_answered()
        row = terminal.screen.display[terminal.screen.cursor.y]
        return answered and row.rstrip() == f"› {text}"

    terminal.wait_for(ready)


def ended(terminal: Terminal, upstream: Upstream, turns: int) -> None:
    """Until so many turns were answered."""
    terminal.wait_for(lambda: len(upstream.chats("agg")) == turns)
    at_empty_prompt(terminal)


def test_a_message_is_edited_in_a_copy(three: Moa, upstream: Upstream) -> None:
    [original] = prompts(three)
    with three.terminal("chat", "-c", columns=120, rows=40) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit 2\r")
        in_line(terminal, "two")
        assert any(line.startswith("message 2 of 3: Enter sends it") for line in terminal.lines())
        terminal.send(" and a half\r")
        terminal.wait_for("a copy that ends before message 2: ")
        ended(terminal, upstream, 1)
        copy = next(iter(prompts(three)))
        said = f"a copy that ends before message 2: {copy}; {original} stays as it is"
        assert said in terminal.lines()
        terminal.send("more\r")
        ended(terminal, upstream, 2)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.shown()[-1] == f"to continue: moa chat --cid {copy}"
    assert sent(upstream) == [
        ["one", "1", "two and a half"],
        ["one", "1", "two and a half", "ok", "more"],
    ]
    assert prompts(three) == {
        copy: ["one", "two and a half", "more"],
        original: ["one", "two", "three"],
    }


def test_the_first_message_begins_a_new_conversation(three: Moa, upstream: Upstream) -> None:
    [original] = prompts(three)
    with three.terminal("chat", "-c", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit 1\r")
        in_line(terminal, "one")
        terminal.send(" anew\r")
        terminal.wait_for(f"a new conversation; {original} stays as it is")
        ended(terminal, upstream, 1)
    assert sent(upstream) == [["one anew"]]
    found = prompts(three)
    assert found.pop(original) == ["one", "two", "three"]
    assert list(found.values()) == [["one anew"]]


@pytest.mark.parametrize("leave", ["\x03", "\x15/show\r"])
def test_what_is_not_sent_changes_nothing(three: Moa, upstream: Upstream, leave: str) -> None:
    [original] = prompts(three)
    with three.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit 1\r")
        in_line(terminal, "one")
        terminal.send(leave)
        at_empty_prompt(terminal)
        terminal.send("four\r")
        ended(terminal, upstream, 1)
    assert prompts(three) == {original: ["one", "two", "three", "four"]}


def test_up_brings_back_the_messages_of_this_conversation_first(
    three: Moa, upstream: Upstream
) -> None:
    assert three.run("ask", "elsewhere").code == 0
    [elsewhere, original] = prompts(three)
    with three.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("in the file\r")
        ended(terminal, upstream, 2)
    with three.terminal("chat", "--cid", original, columns=120) as terminal:
        at_empty_prompt(terminal)
        for text in ("three", "two", "one", "in the file"):
            terminal.send(UP)
            in_line(terminal, text)
        terminal.send("\x03")
        at_empty_prompt(terminal)
        terminal.send("/rounds\r")
        terminal.wait_for("rounds 1")
        at_empty_prompt(terminal)
        for text in ("/rounds", "three"):
            terminal.send(UP)
            in_line(terminal, text)
        terminal.send("\x03")
        at_empty_prompt(terminal)
        terminal.send(f"/resume {elsewhere}\r")
        terminal.wait_for("› elsewhere")
        at_empty_prompt(terminal)
        terminal.send(UP)
        in_line(terminal, "elsewhere")


@pytest.mark.parametrize(
    ("key", "copied", "left"),
    [("e", ["one", "two!"], 0), ("\r", ["one", "two", "three", "two!"], 1)],
)
def test_a_message_that_came_back_by_up_and_was_changed_is_asked_about(
    three: Moa, upstream: Upstream, key: str, copied: list[str], left: int
) -> None:
    [original] = prompts(three)
    with three.terminal("chat", "-c", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send(UP + UP)
        in_line(terminal, "two")
        terminal.send("!\r")
        terminal.wait_for(CHOICE.format(2))
        assert not upstream.chats()
        terminal.send(key)
        ended(terminal, upstream, 1)
    found = prompts(three)
    assert next(iter(found.values())) == copied
    assert (original in list(found)[:1]) == bool(left)


def test_esc_goes_back_to_the_changed_line(three: Moa, upstream: Upstream) -> None:
    with three.terminal("chat", "-c", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send(UP)
        in_line(terminal, "three")
        terminal.send("!\r")
        terminal.wait_for(CHOICE.format(3))
        terminal.send("\x1b")
        in_line(terminal, "three!")
        terminal.send("\r")
        terminal.wait_for(lambda: "\n".join(terminal.lines()).count(CHOICE.format(3)) == 2)
    assert not upstream.chats()


def test_a_message_that_came_back_unchanged_is_sent_again(three: Moa, upstream: Upstream) -> None:
    [original] = prompts(three)
    with three.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{UP}\r")
        ended(terminal, upstream, 1)
    assert prompts(three) == {original: ["one", "two", "three", "three"]}


def test_images_stay_with_an_edited_message(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "photo.png").write_bytes(PNG)
    assert moa.run("ask", "-f", "photo.png", "what is this?").code == 0
    with moa.terminal("chat", "-c", columns=120) as terminal:
        at_prompt(terminal)
        terminal.send("/edit 1\r")
        in_line(terminal, "what is this?")
        terminal.send(" Say it briefly.\r")
        ended(terminal, upstream, 2)
    before, after = (request.messages[-1]["content"] for request in upstream.chats("agg"))
    assert "photo.png" in str(before) or "image_url" in str(before)
    assert str(after) == str(before).replace("what is this?", "what is this? Say it briefly.")


NOTES = "\n".join(f"note {number}" for number in range(40))
STANDS_FOR_NOTES = f"[attached: notes.txt, 40 lines, {len(NOTES)} characters]"


@pytest.fixture
def noted(moa: Moa, upstream: Upstream) -> Moa:
    """A conversation whose first message has a text file."""
    moa.profile("lab", "a", "b")
    (moa.folder / "notes.txt").write_text(NOTES, "utf-8")
    moa.run("ask", "-f", "notes.txt", "What is in it?")
    return moa


def test_text_files_are_folded_to_a_line_and_stay_with_an_edited_message(
    noted: Moa, upstream: Upstream
) -> None:
    with noted.terminal("chat", "-c", columns=100, rows=30) as terminal:
        at_empty_prompt(terminal)
        assert STANDS_FOR_NOTES in terminal.lines()
        assert not [line for line in terminal.lines() if "note 7" in line]
        terminal.send("/edit 1\r")
        terminal.wait_for(lambda: terminal.screen.display[terminal.screen.cursor.y][2] == "[")
        assert not [line for line in terminal.lines() if "note 7" in line]
        terminal.send(" Say it briefly.\r")
        ended(terminal, upstream, 2)
        [prompt] = sent(upstream)[-1]
        assert prompt.startswith("What is in it?\n\nnotes.txt:\n```\nnote 0\n")
        assert prompt.endswith("note 39\n```\n\nSay it briefly.")


def test_a_text_file_whose_line_is_deleted_does_not_go_with_an_edited_message(
    noted: Moa, upstream: Upstream
) -> None:
    with noted.terminal("chat", "-c", columns=100, rows=30) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit 1\r")
        terminal.wait_for(lambda: terminal.screen.display[terminal.screen.cursor.y][2] == "[")
        terminal.send("\x15Nothing?\r")
        ended(terminal, upstream, 2)
        assert sent(upstream)[-1] == ["What is in it?\n\nNothing?"]


def test_a_message_that_came_back_by_up_keeps_its_text_files(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "notes.txt").write_text(NOTES, "utf-8")
    with moa.terminal("chat", columns=100, rows=30) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/file notes.txt\r")
        terminal.wait_for("goes with the next prompt")
        at_empty_prompt(terminal)
        terminal.send("What is in it?\r")
        ended(terminal, upstream, 1)
        terminal.send(UP)
        in_line(terminal, "What is in it?")
        terminal.send(" All?\r")
        terminal.wait_for(CHOICE.format(1))
        terminal.send("e")
        ended(terminal, upstream, 2)
        [prompt] = sent(upstream)[-1]
        assert prompt.startswith("What is in it? All?\n\nnotes.txt:\n```\nnote 0\n")


def test_a_message_without_a_reply_is_edited_too(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    upstream.enqueue("agg", Reply(status=400, error="no"))
    assert moa.run("ask", "/one").code == 1
    with moa.terminal("chat", "-c", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit 1\r")
        in_line(terminal, "//one")
        terminal.send("!\r")
        ended(terminal, upstream, 2)
    assert sent(upstream)[-1] == ["/one!"]


def test_an_unsaved_conversation_says_that_nothing_stays(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat", "--no-save", columns=120) as terminal:
        at_empty_prompt(terminal)
        for number, text in enumerate(("one", "two"), 1):
            terminal.send(f"{text}\r")
            ended(terminal, upstream, number)
        terminal.send("/edit 2\r")
        in_line(terminal, "two")
        terminal.send("!\r")
        terminal.wait_for("message 2 and all later ones are left out; they are not saved")
        ended(terminal, upstream, 3)
    assert sent(upstream)[-1] == ["one", "ok", "two!"]


def test_a_number_without_a_message_is_refused(talk: Talk) -> None:
    assert talk.do("/edit 1") == "moa: there is no message 1 (there are 0 messages)"
    talk.do("hello")
    assert talk.do("/edit 2") == "moa: there is no message 2 (there is 1 message)"
    assert talk.do("/edit 1") == "moa: to edit a message, the chat needs a terminal"
    assert talk.do("/edit hello, but longer") == "moa: /edit needs a terminal"


def test_lines_are_matched_to_messages() -> None:
    found = recalled(
        ["/show", "same", "//slash", "same"], ["same", "old", "/slash", "same"], ["old", "file"]
    )
    assert found == [
        Recalled("/show"),
        Recalled("same", 4),
        Recalled("//slash", 3),
        Recalled("same", 1),
        Recalled("old", 2),
        Recalled("file"),
    ]


@pytest.mark.parametrize(
    ("option", "title"), [("--no-title", "The title"), ("--plain", "# The title")]
)
def test_replies_of_a_continued_chat_are_drawn_as_they_were(
    moa: Moa, option: str, title: str
) -> None:
    keep(moa, ("one", "# The title\n\n```\ncode\n```"))
    with moa.terminal("chat", "-c", option, columns=100, rows=30) as terminal:
        at_empty_prompt(terminal)
        lines = terminal.lines()
        assert [line.strip() for line in lines if "title" in line] == [title]
        assert ("```" in lines) == (option == "--plain")
