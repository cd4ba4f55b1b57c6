"""`/export` and `/save`: what is written where, that nothing is overwritten unasked, and that a
chat which was not to be saved can be saved after all."""

from __future__ import annotations

import json
import stat

import pytest

from tests.support.command import Moa
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

REPLY = "Rain **falls**."


@pytest.fixture(autouse=True)
def replies(upstream: Upstream) -> None:
    """What the aggregator says."""
    upstream.always("agg", Reply(text=REPLY))


def chat(moa: Moa, *lines: str, options: tuple[str, ...] = ()) -> str:
    """What a chat says to these lines."""
    ran = moa.run("chat", *options, stdin="".join(f"{line}\n" for line in lines).encode())
    assert "Traceback" not in ran.err
    return ran.err


@pytest.mark.parametrize("options", [(), ("--no-save",)])
def test_export_writes_the_conversation_and_says_where(moa: Moa, options: tuple[str, ...]) -> None:
    err = chat(moa, "what is rain?", "/export", "/export", "/export out.html", options=options)
    text = (moa.folder / "what-is-rain.md").read_text("utf-8")
    assert "what is rain?" in text
    assert REPLY in text
    assert "<strong>falls</strong>" in (moa.folder / "out.html").read_text("utf-8")
    assert (moa.folder / "what-is-rain-2.md").read_text("utf-8").count(REPLY) == 1
    for name in ("what-is-rain.md", "what-is-rain-2.md", "out.html"):
        assert f"wrote {moa.folder / name}" in err
        assert stat.S_IMODE((moa.folder / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("options", [(), ("--no-save",)])
def test_an_export_as_json_can_be_imported(moa: Moa, options: tuple[str, ...]) -> None:
    chat(moa, "what is rain?", "and snow?", "/export out.json", options=options)
    values = json.loads((moa.folder / "out.json").read_text("utf-8"))
    assert [turn["prompt"] for turn in values["conversations"][0]["turns"]] == [
        "what is rain?",
        "and snow?",
    ]
    ran = moa.run("history", "import", "out.json")
    assert ran.code == 0
    shown = moa.run("history", "show", "--plain").text
    assert shown.count(REPLY) == 2


def test_save_writes_the_last_reply(moa: Moa) -> None:
    err = chat(moa, "what is rain?", "/save answer.md", "/save 'my answer.md'")
    assert (moa.folder / "answer.md").read_text("utf-8") == f"{REPLY}\n"
    assert (moa.folder / "my answer.md").read_text("utf-8") == f"{REPLY}\n"
    assert f"wrote {moa.folder / 'answer.md'}" in err


def test_escape_sequences_of_a_model_reach_no_file(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="red \x1b[31m\x1b]0;gone\x07text"))
    chat(moa, "what is rain?", "/save answer.md", "/export out.md")
    for name in ("answer.md", "out.md"):
        assert "\x1b" not in (moa.folder / name).read_text("utf-8")


@pytest.mark.parametrize("command", ["/save", "/export"])
def test_a_file_is_overwritten_only_on_demand(moa: Moa, command: str) -> None:
    file = moa.folder / "mine.md"
    file.write_text("mine")
    err = chat(moa, "what is rain?", f"{command} mine.md")
    assert "mine.md: already exists (--force overwrites it)" in err
    assert file.read_text() == "mine"
    chat(moa, "what is rain?", f"{command} --force mine.md")
    assert REPLY in file.read_text()
    file.write_text("mine")
    chat(moa, "what is rain?", f"{command} mine.md --force")
    assert REPLY in file.read_text()
    chat(moa, "what is rain?", f"{command} mine--force")
    assert sorted(path.name for path in moa.folder.iterdir()) == ["mine--force", "mine.md"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", "already exists"),
        ("loop/x.md", "cannot be written: Too many levels of symbolic links"),
        ("9" * 5000, "cannot be written: File name too long"),
        ("mine.md/x.md", "cannot be written: Not a directory"),
        ("nowhere/x.md", "cannot be written: No such file or directory"),
        ("con.md", "Windows reserves the name"),
    ],
)
@pytest.mark.parametrize("command", ["/save", "/export"])
def test_what_cannot_be_written_is_one_clear_line(
    moa: Moa, command: str, path: str, said: str
) -> None:
    (moa.folder / "loop").symlink_to("loop")
    (moa.folder / "mine.md").write_text("mine")
    err = chat(moa, "what is rain?", f"{command} {path}")
    assert len([line for line in err.splitlines() if said in line]) == 1


def test_an_export_in_a_format_that_there_is_not_names_those_that_there_are(moa: Moa) -> None:
    err = chat(moa, "what is rain?", "/export x.pdf", "/export --force x.docx")
    assert "x.pdf: conversations are not written as .pdf (.md is Markdown," in err
    assert "x.docx: conversations are not written as .docx (.md is Markdown," in err
    assert list(moa.folder.iterdir()) == []


def test_a_reply_is_not_saved_under_the_name_of_another_format(moa: Moa) -> None:
    err = chat(moa, "what is rain?", "/save x.pdf", "/save --force x.DOCX", "/save rain.py")
    assert "x.pdf: text cannot be written as .pdf (choose another ending)" in err
    assert "x.DOCX: text cannot be written as .docx (choose another ending)" in err
    assert [path.name for path in moa.folder.iterdir()] == ["rain.py"]


def test_before_the_first_reply_there_is_nothing_to_write(moa: Moa) -> None:
    err = chat(moa, "/export", "/save x.md")
    assert "there is nothing to export yet" in err
    assert "there is no reply to save" in err
    assert list(moa.folder.iterdir()) == []


def test_an_unsaved_chat_is_saved_after_all(moa: Moa) -> None:
    lines = ("what is rain?", "/save", "and snow?", "/undo", "and hail?")
    err = chat(moa, *lines, options=("--no-save",))
    assert "this conversation is saved from now on" in err
    listing = moa.run("history", "list").text.splitlines()
    assert len(listing) == 1
    assert "2 turns" in listing[0]
    assert f"moa chat --cid {listing[0].split()[0]}" in err
    shown = moa.run("history", "show", "--plain").text
    assert "what is rain?" in shown
    assert "and hail?" in shown
    assert "and snow?" not in shown


def test_saving_before_the_first_turn_saves_what_follows(moa: Moa) -> None:
    chat(moa, "/save", "what is rain?", options=("--no-save",))
    assert "1 turn " in moa.run("history", "list").text


def test_a_turn_that_failed_is_saved_and_can_be_asked_again(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(status=500))
    chat(moa, "what is rain?", "/save", "/retry", options=("--no-save",))
    assert REPLY in moa.run("history", "show", "--plain").text


def test_a_saved_chat_says_where_it_is(moa: Moa) -> None:
    err = chat(moa, "what is rain?", "/save")
    identity = moa.run("history", "list").text.split()[0]
    assert f"it is in the history: moa chat --cid {identity}" in err
    assert len(moa.run("history", "list").text.splitlines()) == 1


def test_both_work_at_a_terminal(moa: Moa) -> None:
    with moa.terminal("chat", columns=200) as terminal:
        at_empty_prompt(terminal)
        terminal.send("what is rain?\r")
        terminal.wait_for("calls, ")
        at_empty_prompt(terminal)
        terminal.send("/save answer.md\r")
        terminal.wait_for(f"wrote {moa.folder / 'answer.md'}")
        at_empty_prompt(terminal)
        terminal.send("/export\r")
        terminal.wait_for(f"wrote {moa.folder / 'what-is-rain.md'}")
