"""A file that is attached goes with the next prompt that is answered, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.talk import Talk
from tests.support.upstream import Reply

REFUSED = Reply(status=400, error={"error": {"message": "no"}})


def test_a_file_goes_with_the_next_prompt_and_no_further(talk: Talk) -> None:
    Path("notes.txt").write_text("hello\n```\n", "utf-8")
    assert talk.do("/file notes.txt") == "notes.txt goes with the next prompt"
    talk.do("What is it?", "And now?")
    attached = "What is it?\n\nnotes.txt:\n````\nhello\n```\n````"
    assert talk.sent("a") == [[attached], [attached, "ok", "And now?"]]
    assert talk.sent("agg") == talk.sent("a")


def test_several_files_go_together(talk: Talk) -> None:
    for name in ("one two.txt", "three.txt"):
        Path(name).write_text(name, "utf-8")
    said = talk.do("/file one two.txt", "/file three.txt", "Well?")
    assert said.endswith("three.txt goes with the next prompt (2 files)")
    [[prompt]] = talk.sent("a")
    assert (
        prompt == "Well?\n\none two.txt:\n```\none two.txt\n```\n\nthree.txt:\n```\nthree.txt\n```"
    )


@pytest.mark.parametrize("again", ["Well?", "/retry"])
def test_a_file_waits_for_a_turn_that_does_not_fail(talk: Talk, again: str) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    talk.upstream.enqueue("agg", REFUSED)
    talk.do("/file notes.txt", "Well?", again, "And?")
    attached = "Well?\n\nnotes.txt:\n```\nhello\n```"
    assert talk.sent("agg") == [[attached], [attached], [attached, "ok", "And?"]]


def test_a_file_is_not_used_up_by_a_reply_to_another_prompt(talk: Talk) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    talk.do("first", "/file notes.txt", "/remerge", "second")
    assert talk.sent("a")[-1][-1] == "second\n\nnotes.txt:\n```\nhello\n```"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "moa: /file needs a path"),
        ("none.txt", "moa: none.txt: cannot be read: No such file or directory"),
        (".", "moa: .: cannot be read: Is a directory"),
        ("binary", "moa: binary: is not a text file"),
        ("~nobody-at-all/x", "moa: ~nobody-at-all/x: is not a path"),
        ("a\0b", "moa: ab: is not a path"),
    ],
)
def test_what_is_no_text_file_is_not_attached(talk: Talk, path: str, said: str) -> None:
    Path("binary").write_bytes(b"\xff\0")
    assert talk.do(f"/file {path}").startswith(said)
    assert talk.chat.options.attachments == []
