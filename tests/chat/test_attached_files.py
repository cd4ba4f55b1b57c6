"""A file that is attached goes with the next prompt that is answered, once."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from moa_cli.core.files import attachments
from tests.support.attached import PNG, data_uri, pdf
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


def test_a_retry_that_cannot_be_sent_leaves_the_last_turn_in_the_conversation(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "MOST_PROMPT_BYTES", len(PNG))
    for name in ("one.png", "two.png"):
        Path(name).write_bytes(PNG)
    told = talk.do("/file one.png", "Well?", "/file two.png", "/retry", "/files drop all", "And?")
    assert "together they may have" in told
    assert talk.sent("agg")[-1][1:] == ["ok", "And?"]
    assert [prompt for prompt, _ in talk.remembered()] == ["Well?\n[image: one.png]", "And?"]


def test_a_dry_run_has_the_files_that_would_be_sent(talk: Talk) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    Path("photo.png").write_bytes(PNG)
    talk.do("/file notes.txt", "/file photo.png")
    told = talk.do("/dry-run Well?")
    assert "    Well?\n\n    notes.txt:\n    ```\n    hello\n" in told
    assert "[image: photo.png]" in told
    assert talk.upstream.chats() == []
    talk.do("Well?")
    assert "hello" in talk.sent("a")[0][0]


def test_a_file_is_not_used_up_by_a_reply_to_another_prompt(talk: Talk) -> None:
    Path("notes.txt").write_text("hello", "utf-8")
    talk.do("first", "/file notes.txt", "/remerge", "second")
    assert talk.sent("a")[-1][-1] == "second\n\nnotes.txt:\n```\nhello\n```"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "moa: /file needs a path"),
        ("none.txt", "moa: none.txt: cannot be read: No such file or directory"),
        (".", "moa: .: holds no file that can be attached"),
        ("binary", "moa: binary: is not a text file"),
        ("~nobody-at-all/x", "moa: ~nobody-at-all/x: is not a path"),
        ("a\0b", "moa: ab: is not a path"),
    ],
)
def test_what_is_no_text_file_is_not_attached(talk: Talk, path: str, said: str) -> None:
    Path("binary").write_bytes(b"\xff\0")
    assert talk.do(f"/file {path}").startswith(said)
    assert talk.chat.options.attachments == []


def contents(talk: Talk, model: str) -> list[list[object]]:
    """What that model was sent, call by call, without system messages."""
    return [
        [message["content"] for message in request.messages if message["role"] != "system"]
        for request in talk.upstream.chats(model)
    ]


WITH_PHOTO = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": data_uri(PNG)}},
]


def test_an_image_goes_with_the_next_prompt_and_stays_in_the_conversation(talk: Talk) -> None:
    Path("photo.png").write_bytes(PNG)
    assert talk.do("/file photo.png") == "photo.png goes with the next prompt"
    talk.do("What is it?", "And now?")
    assert contents(talk, "a") == [[WITH_PHOTO], [WITH_PHOTO, "ok", "And now?"]]
    assert contents(talk, "agg") == contents(talk, "a")
    assert talk.remembered()[0] == ("What is it?\n[image: photo.png]", "ok")


def test_the_text_of_a_pdf_file_goes_with_the_next_prompt(talk: Talk) -> None:
    Path("paper.pdf").write_bytes(pdf("A claim"))
    talk.do("/file paper.pdf", "Sum up")
    assert talk.sent("a") == [["Sum up\n[file: paper.pdf]\nA claim"]]


@pytest.mark.parametrize("command", ["/retry", "/retry lab:other", "/remerge"])
def test_a_turn_is_asked_again_with_its_image(talk: Talk, command: str) -> None:
    Path("photo.png").write_bytes(PNG)
    talk.do("/file photo.png", "What is it?", command)
    model = "other" if "other" in command else "agg"
    assert contents(talk, model)[-1] == [WITH_PHOTO]
    assert len(talk.remembered()) == 1
    talk.do("And?")
    assert contents(talk, "agg")[-1] == [WITH_PHOTO, "ok", "And?"]


@pytest.mark.parametrize("again", ["What is it?", "/retry"])
def test_an_image_waits_for_a_turn_that_does_not_fail(talk: Talk, again: str) -> None:
    Path("photo.png").write_bytes(PNG)
    talk.upstream.enqueue("agg", REFUSED)
    talk.do("/file photo.png", "What is it?", again, "And?")
    assert contents(talk, "agg") == [[WITH_PHOTO], [WITH_PHOTO], [WITH_PHOTO, "ok", "And?"]]


@pytest.mark.parametrize(
    "typed",
    [
        "{path}",
        "'{path}'",
        '"{path}"',
        "{escaped}",
        "file://{quoted}",
        "./my photo.png",
        "  {path} ",
    ],
)
def test_the_path_of_an_image_on_a_line_of_its_own_attaches_it(talk: Talk, typed: str) -> None:
    path = Path("my photo.png").absolute()
    path.write_bytes(PNG)
    line = typed.format(path=path, escaped=str(path).replace(" ", "\\ "), quoted=quote(str(path)))
    assert talk.do(line).endswith("my photo.png goes with the next prompt")
    assert talk.upstream.requests == []
    talk.do("What is it?")
    assert contents(talk, "a") == [[WITH_PHOTO]]


def test_code_below_a_path_keeps_its_indentation(talk: Talk) -> None:
    Path("photo.png").write_bytes(PNG)
    talk.do(f"{Path.cwd()}/photo.png\n\n    return x\nreturn y\n")
    text = {"type": "text", "text": "    return x\nreturn y"}
    image = {"type": "image_url", "image_url": {"url": data_uri(PNG)}}
    assert contents(talk, "a") == [[[text, image]]]


def test_paths_among_the_lines_of_a_prompt_are_attached(talk: Talk) -> None:
    Path("photo.png").write_bytes(PNG)
    Path("paper.pdf").write_bytes(pdf("A claim"))
    Path("notes.txt").write_text("notes")
    here = Path.cwd()
    talk.do(f"Compare:\n{here}/photo.png\n{here}/paper.pdf\n{here}/notes.txt\nphoto.png is mine")
    assert contents(talk, "a") == [
        [
            [
                {"type": "text", "text": f"Compare:\n{here}/notes.txt\nphoto.png is mine"},
                {"type": "image_url", "image_url": {"url": data_uri(PNG)}},
                {"type": "text", "text": "[file: paper.pdf]\nA claim"},
            ]
        ]
    ]


@pytest.mark.parametrize(
    "line",
    ["/nosuch/photo.png", "none.png", "~nobody-at-all/x", "a\0b.png", "x" * 5000 + ".gif"],
)
def test_a_line_that_names_no_file_is_what_it_was(talk: Talk, line: str) -> None:
    talk.do(line)
    assert talk.chat.options.attachments == []
    if not line.startswith("/"):
        assert talk.sent("a") == [[line]]


def test_a_pasted_file_that_cannot_be_attached_is_told(talk: Talk) -> None:
    Path("photo.png").write_bytes(b"II*\0")
    assert "is a TIFF image, which models do not take" in talk.do("photo.png")
    assert talk.upstream.requests == []


def test_a_model_that_refused_an_image_is_not_sent_the_next_one(talk: Talk) -> None:
    Path("photo.png").write_bytes(PNG)
    no = {"error": {"message": "This model does not support image input"}}
    talk.upstream.enqueue("a", Reply(status=400, error=no))
    talk.do("/file photo.png", "What is it?", "/file photo.png", "And this?")
    text = "What is it?\n[image: photo.png]"
    assert contents(talk, "a")[1:] == [[text], [text, "ok", "And this?\n[image: photo.png]"]]
    assert contents(talk, "b")[-1][-1] != "And this?\n[image: photo.png]"


def test_images_are_refused_once_all_models_have_refused_them(talk: Talk) -> None:
    Path("photo.png").write_bytes(PNG)
    no = Reply(status=400, error={"error": {"message": "This model does not support image input"}})
    for model in ("a", "b", "agg"):
        talk.upstream.enqueue(model, no)
    talk.do("/file photo.png", "What is it?")
    calls = len(talk.upstream.chats())
    said = talk.do("/file photo.png", "And this?")
    assert "no model of the profile can see the image: lab:a, lab:b, lab:agg" in said
    assert len(talk.upstream.chats()) == calls
