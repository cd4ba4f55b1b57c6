"""Files in `moa chat` at a real terminal: mentioned, completed, listed, dropped, kept, and asked
about before they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.attached import PNG, data_uri, images
from tests.support.command import Moa, Terminal
from tests.support.talk import at_empty_prompt, at_prompt, sent
from tests.support.upstream import Reply, Upstream

SECRET = ".env seems to hold settings with keys: send it to the models?"


@pytest.fixture(autouse=True)
def folder(moa: Moa) -> Path:
    """The user's folder, with a few files."""
    (moa.folder / "src").mkdir()
    files = {"notes.txt": "first", "my list.md": "a list", ".env": "KEY=1", "src/main.py": "x = 1"}
    for name, text in files.items():
        (moa.folder / name).write_text(text, "utf-8")
    (moa.folder / "photo.png").write_bytes(PNG)
    return moa.folder


@contextmanager
def chatting(moa: Moa, columns: int = 140) -> Iterator[Terminal]:
    with moa.terminal("chat", columns=columns) as terminal:
        at_prompt(terminal)
        yield terminal


def say(terminal: Terminal, upstream: Upstream, prompt: str) -> None:
    """Send a prompt, and wait until it is answered."""
    answered = len(upstream.chats("agg"))
    terminal.send(f"{prompt}\r")
    terminal.wait_for(lambda: len(upstream.chats("agg")) > answered)
    at_empty_prompt(terminal)


def said(terminal: Terminal) -> str:
    """All that was shown, with single spaces: lines are folded at the terminal's width."""
    return " ".join(" ".join(terminal.lines()).split())


def test_a_file_that_a_prompt_mentions_goes_with_that_prompt_alone(
    moa: Moa, upstream: Upstream
) -> None:
    with chatting(moa) as terminal:
        say(terminal, upstream, 'Why @notes.txt, and (@"my list.md")?')
        assert "with notes.txt, my list.md (about " in said(terminal)
        say(terminal, upstream, "And now?")
    prompt = (
        'Why @notes.txt, and (@"my list.md")?\n\nnotes.txt:\n```\nfirst\n```\n\n'
        "my list.md:\n```\na list\n```"
    )
    assert sent(upstream, "a") == [[prompt], [prompt, "ok", "And now?"]]


@pytest.mark.parametrize(
    "mention",
    ["@'my list.md',", "@my\\ list.md?", "@my\\ list.md's end", "@file://{}/my%20list.md"],
)
def test_a_path_with_spaces_is_mentioned_as_shells_and_terminals_write_it(
    moa: Moa, upstream: Upstream, mention: str
) -> None:
    line = f"Why {mention.format(moa.folder)} so"
    with chatting(moa) as terminal:
        say(terminal, upstream, line)
    [[prompt]] = sent(upstream, "a")
    assert prompt.startswith(f"{line}\n\n")
    assert prompt.endswith("my list.md:\n```\na list\n```")


def test_a_mentioned_image_goes_as_an_image(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        say(terminal, upstream, "What is @photo.png?")
    assert images(upstream.chats("a")[0].messages[-1]) == [data_uri(PNG)]


def test_a_mention_that_names_nothing_stays_text_and_a_lost_path_is_told(
    moa: Moa, upstream: Upstream
) -> None:
    with chatting(moa) as terminal:
        say(terminal, upstream, r"Mail me@notes.txt, use @property, see @src/none.py, @no\ file")
        for path in ("src/none.py", "no file"):
            told = f"moa: {path}: there is no such file, so the line is sent as text"
            assert told in said(terminal)
        assert "property:" not in said(terminal)
    assert sent(upstream, "a") == [
        [r"Mail me@notes.txt, use @property, see @src/none.py, @no\ file"]
    ]


def test_what_is_piped_in_mentions_no_files(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("chat", stdin=b"Why @notes.txt?\n").code == 0
    assert sent(upstream, "a") == [["Why @notes.txt?"]]


def test_the_menu_offers_paths_while_they_are_typed_and_enter_takes_one(
    moa: Moa, upstream: Upstream
) -> None:
    with chatting(moa) as terminal:
        terminal.send("Why @sr")
        terminal.wait_for("src/   folder")
        terminal.send("\x1b[B\r")
        terminal.wait_for("main.py")
        terminal.send("\x1b[B\r")
        terminal.wait_for("Why @src/main.py")
        terminal.settle()
        assert upstream.requests == []
        terminal.send("fails?\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 1)
        at_empty_prompt(terminal)
    assert sent(upstream, "a") == [["Why @src/main.py fails?\n\nsrc/main.py:\n```\nx = 1\n```"]]


def test_a_command_takes_folders_patterns_and_several_files(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file src notes.txt *.md\r")
        terminal.wait_for("(3 files, about 30 tokens) go with the next prompt")
        say(terminal, upstream, "What?")
    [[prompt]] = sent(upstream, "a")
    assert prompt == (
        "What?\n\nsrc/main.py:\n```\nx = 1\n```\n\nnotes.txt:\n```\nfirst\n```\n\n"
        "my list.md:\n```\na list\n```"
    )


def test_the_bar_names_what_is_attached_until_it_is_sent(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file notes.txt\r")
        terminal.wait_for("notes.txt attached · files about")
        terminal.send("/file photo.png\r")
        terminal.wait_for("notes.txt, photo.png attached · files about")
        terminal.send("/file src\r")
        terminal.wait_for("notes.txt, 2 more attached · files about")
        say(terminal, upstream, "What?")
        assert "attached" not in terminal.shown()[-1]


def test_attached_files_are_listed_and_taken_away(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file notes.txt\r/file photo.png\r/file src\r")
        terminal.wait_for("src (1 file, about 12 tokens) goes with the next prompt (3 files)")
        at_empty_prompt(terminal)
        terminal.send("/files\r")
        terminal.wait_for("2  photo.png    image, about 800 tokens")
        terminal.send("/files drop 2\r")
        terminal.wait_for("photo.png is no longer attached")
        terminal.send("/files drop src\r")
        terminal.wait_for("src/main.py is no longer attached")
        terminal.send("/files drop 7\r")
        terminal.wait_for("7 is not attached (/files lists the attached files)")
        say(terminal, upstream, "What?")
    assert sent(upstream, "a") == [["What?\n\nnotes.txt:\n```\nfirst\n```"]]


def test_the_same_file_is_attached_once_as_it_is_now(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file notes.txt\r/file ./notes.txt\r")
        terminal.wait_for("./notes.txt goes with the next prompt")
        at_empty_prompt(terminal)
        (moa.folder / "notes.txt").write_text("changed since", "utf-8")
        say(terminal, upstream, "What?")
    assert sent(upstream, "a") == [["What?\n\nnotes.txt:\n```\nchanged since\n```"]]


@pytest.mark.parametrize("how", ["flag", "command", "setting"])
def test_a_kept_file_goes_with_each_prompt_as_it_then_is(
    moa: Moa, upstream: Upstream, how: str
) -> None:
    if how == "setting":
        moa.configure(**moa.settings() | {"keep_files": True})
    with chatting(moa) as terminal:
        terminal.send(f"/file notes.txt{' --keep' if how == 'flag' else ''}\r")
        terminal.wait_for("notes.txt goes with")
        if how == "command":
            terminal.send("/files keep 1\r")
        terminal.wait_for("notes.txt kept · files about")
        at_empty_prompt(terminal)
        say(terminal, upstream, "One?")
        (moa.folder / "notes.txt").write_text("second", "utf-8")
        say(terminal, upstream, "Two?")
        terminal.send("/files drop all\r")
        terminal.wait_for("notes.txt is no longer attached")
        say(terminal, upstream, "Three?")
    assert [prompts[-1] for prompts in sent(upstream, "a")] == [
        "One?\n\nnotes.txt:\n```\nfirst\n```",
        "Two?\n\nnotes.txt:\n```\nsecond\n```",
        "Three?",
    ]


def test_a_kept_file_that_is_gone_is_told_and_nothing_is_sent(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file notes.txt\r")
        terminal.wait_for("notes.txt attached · files about")
        (moa.folder / "notes.txt").unlink()
        terminal.send("What?\r")
        terminal.wait_for("notes.txt: cannot be read: No such file or directory")
        at_prompt(terminal)
        assert "(/files drop NAME removes it)" in said(terminal)
    assert upstream.chats() == []


@pytest.mark.parametrize("key", ["n", "\r", "\x1b", "\x03"])
def test_a_mentioned_secret_is_asked_about_and_a_no_gives_the_line_back(
    moa: Moa, upstream: Upstream, key: str
) -> None:
    with chatting(moa) as terminal:
        terminal.send("Why @.env \r")
        terminal.wait_for(SECRET)
        terminal.settle()
        terminal.send(key)
        terminal.wait_for("left out: 1 file that may hold secrets")
        terminal.wait_for("› Why @.env")
        at_prompt(terminal)
    assert upstream.chats() == []


def test_a_yes_sends_the_secret(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa) as terminal:
        terminal.send("Why @.env \r")
        terminal.wait_for(SECRET)
        terminal.settle()
        terminal.send("y")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 1)
    assert sent(upstream, "a") == [["Why @.env\n\n.env:\n```\nKEY=1\n```"]]


def test_a_question_is_folded_between_words(moa: Moa, upstream: Upstream) -> None:
    with chatting(moa, columns=40) as terminal:
        terminal.send("/file .env\r")
        terminal.wait_for(".env seems to hold settings with keys:\nsend it to the models? (y/n)")


def test_a_command_asks_about_a_secret_too_and_a_pipe_needs_its_flag(
    moa: Moa, upstream: Upstream
) -> None:
    with chatting(moa) as terminal:
        terminal.send("/file .env\r")
        terminal.wait_for(SECRET)
        terminal.settle()
        terminal.send("n")
        terminal.wait_for("nothing is attached")
    ran = moa.run("chat", stdin=b"/file .env\nWhy?\n")
    assert f"{SECRET} (not sent; `/file PATH --allow-secrets` attaches it)" in ran.err
    assert sent(upstream, "a") == [["Why?"]]
    moa.run("chat", stdin=b"/file --allow-secrets .env\nWhy?\n")
    assert "KEY=1" in sent(upstream, "a")[-1][-1]


def test_many_tokens_are_asked_about(moa: Moa, upstream: Upstream) -> None:
    price = {"prompt": 1.0, "completion": 2.0}
    prices = {f"lab:{model}": price for model in ("a", "b", "c", "agg")}
    moa.configure(**moa.settings() | {"confirm_tokens": 1000, "prices": prices})
    (moa.folder / "large.txt").write_text("word " * 1200)
    question = "about 1,087 tokens, about $0.0011 a proposer: send?"
    with chatting(moa) as terminal:
        terminal.send("/file large.txt\r")
        terminal.wait_for(question)
        terminal.settle()
        terminal.send("n")
        terminal.wait_for("nothing is attached")
        at_empty_prompt(terminal)
        terminal.send("Why @large.txt \r")
        terminal.wait_for(lambda: said(terminal).count(question) == 2)
        terminal.settle()
        terminal.send("y")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 1)
    assert "word word" in sent(upstream, "a")[0][0]


def test_a_prompt_whose_file_cannot_be_sent_is_given_back(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "data.bin").write_bytes(b"\0\1")
    with chatting(moa) as terminal:
        terminal.send("Why @data.bin \r")
        terminal.wait_for("moa: data.bin: is not a text file: line 1 holds a NUL character")
        terminal.wait_for("› Why @data.bin")
        at_prompt(terminal)
    assert upstream.chats() == []


def test_a_turn_that_fails_gives_the_line_back_and_its_files_are_sent_once(
    moa: Moa, upstream: Upstream
) -> None:
    no = Reply(status=400, error={"error": {"message": "no"}})
    upstream.enqueue("agg", no)
    with chatting(moa) as terminal:
        terminal.send("Why @notes.txt \r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 1)
        terminal.wait_for("/remerge")
        at_prompt(terminal)
        terminal.send("\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 2)
    assert sent(upstream, "agg")[-1] == ["Why @notes.txt\n\nnotes.txt:\n```\nfirst\n```"]


def test_notices_in_wide_letters_fit_the_window(moa: Moa) -> None:
    with chatting(moa, 40) as terminal:
        terminal.send("/file notes.txt\r")
        terminal.wait_for("goes with the next")
        terminal.send(f"/files drop {'漢字 かな ' * 6}\r")
        terminal.wait_for("lists the attached")
        rows = [line for line in terminal.lines() if "漢字" in line]
        notice = rows[next(n for n, row in enumerate(rows) if row.startswith("moa:")) :]
        # The terminal itself has folded none of them: each row ends with a whole word.
        words = {word for row in notice for word in row.split()}
        assert {word for word in words if not word.isascii()} == {"漢字", "かな"}
