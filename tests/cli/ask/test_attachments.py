"""`moa ask -f`: images go to the models that see them, the text of PDF files to all; what cannot
be attached is refused in one line, and nothing is sent."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader, PdfWriter

from tests.support.attached import GIF, JPEG, PNG, WEBP, data_uri, images, pdf, png
from tests.support.command import KEY, Moa
from tests.support.upstream import Reply, Upstream

TEXT = "What is it?\n[image: photo.png]"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(api_key=KEY) as upstream:
        yield upstream


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    made = Moa(tmp_path, upstream.url)
    (made.folder / "photo.png").write_bytes(PNG)
    return made


def seen(upstream: Upstream, model: str) -> list[bool]:
    """Whether each call of that model held an image in its last message."""
    return [bool(images(request.messages[-1])) for request in upstream.chats(model)]


def refusal(message: str, status: int = 400) -> Reply:
    return Reply(status=status, error={"error": {"message": message, "type": "invalid_request"}})


def encrypted(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret words"))))
    writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("photo.png", PNG, "image/png"),
        ("photo", JPEG, "image/jpeg"),
        ("photo.txt", GIF, "image/gif"),
        ("photo.png", WEBP, "image/webp"),
    ],
)
def test_an_image_goes_to_every_model_as_what_its_content_is(
    moa: Moa, upstream: Upstream, name: str, content: bytes, kind: str
) -> None:
    (moa.folder / name).write_bytes(content)
    assert moa.run("ask", "What is it?", "-f", name).text == "ok\n"
    for model in ("a", "b", "c", "agg"):
        [request] = upstream.chats(model)
        assert request.messages[-1]["content"] == [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": data_uri(content, kind)}},
        ]


def test_several_files_keep_their_order(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "notes.txt").write_text("notes")
    (moa.folder / "paper.pdf").write_bytes(pdf("First page", "Second page"))
    files = [word for name in ("notes.txt", "photo.png", "paper.pdf") for word in ("-f", name)]
    assert moa.run("ask", "Compare", *files, "-f", "-", stdin=GIF).code == 0
    [request] = upstream.chats("agg")
    assert request.messages[-1]["content"] == [
        {"type": "text", "text": "Compare\n\nnotes.txt:\n```\nnotes\n```"},
        {"type": "image_url", "image_url": {"url": data_uri(PNG)}},
        {"type": "text", "text": "[file: paper.pdf]\nFirst page\n\nSecond page"},
        {"type": "image_url", "image_url": {"url": data_uri(GIF, "image/gif")}},
    ]


def test_the_text_of_a_pdf_file_goes_to_all_models_as_text(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "paper").write_bytes(pdf("A claim \x1b]52;c;x\x07(bold)", "Its proof"))
    assert moa.run("ask", "Sum up", "-f", "paper").code == 0
    for model in ("a", "agg"):
        [request] = upstream.chats(model)
        text = request.messages[-1]["content"]
        assert text.startswith("Sum up\n[file: paper]\nA claim ")
        assert text.endswith("(bold)\n\nIts proof")
        assert "\x1b" not in text


def test_a_pdf_file_with_an_empty_password_is_read(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "paper.pdf").write_bytes(encrypted(""))
    assert moa.run("ask", "-f", "paper.pdf").code == 0
    assert upstream.chats("a")[0].messages[-1]["content"] == "[file: paper.pdf]\nsecret words"


def looped() -> bytes:
    """A PDF file whose pages are their own children."""
    return pdf("x").replace(b"/Kids[4 0 R]", b"/Kids[2 0 R]")


def inflating() -> bytes:
    """A PDF file of some hundred thousand bytes with a page of 130 million."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"BT (x) Tj ET " * 100_000) for _ in range(100))
    packed += packer.flush()
    page = b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed)
    return re.sub(rb"<</Length.*?endstream", lambda _: page, pdf("x"), flags=re.DOTALL)


@pytest.mark.parametrize("hostile", [looped, inflating])
def test_a_hostile_pdf_file_ends_in_one_line(
    moa: Moa, upstream: Upstream, hostile: Callable[[], bytes]
) -> None:
    (moa.folder / "p.pdf").write_bytes(hostile())
    ran = moa.run("ask", "hi", "-f", "p.pdf")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    assert ran.err.startswith("moa: p.pdf: is a")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("start", "most"),
    [(pdf("x"), "a PDF file 50,000,000"), (PNG, "an image may have 10,000,000")],
    ids=["pdf", "png"],
)
def test_a_huge_file_is_refused(moa: Moa, upstream: Upstream, start: bytes, most: str) -> None:
    for size in (50_000_001, 10_000_001):
        with (moa.folder / "huge").open("wb") as file:
            file.write(start)
            file.truncate(size)
        if size > 50_000_000 or start == PNG:
            ran = moa.run("ask", "hi", "-f", "huge")
            assert (ran.code, ran.err.count("\n")) == (2, 1)
            assert most in ran.err
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.pdf", b"%PDF-1.4\n1 0 obj <</Type/Catalog>> endobj\n", "is a broken PDF file"),
        ("p.pdf", pdf("x")[:200], "is a broken PDF file"),
        ("p.pdf", encrypted("secret"), "is a PDF file that a password protects"),
        ("p.pdf", pdf("", ""), "is a PDF file without text: its pages are images"),
        ("p.pdf", pdf(*["x"] * 501), "has 501 pages; of a PDF file at most 500 are read"),
        ("p.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1", "is a HEIC image, which models do not take"),
        ("p.tif", b"II*\0\x08\0\0\0", "is a TIFF image, which models do not take"),
        ("p.bmp", b"BM\x46\0\0\0\0\0\0\0\x36\0", "is a BMP image, which models do not take"),
        ("p.png", b"\0\1\2", "is not a text file: line 1 holds a NUL character"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_attached_is_refused_in_one_line(
    moa: Moa, upstream: Upstream, name: str, content: bytes, said: str
) -> None:
    (moa.folder / name).write_bytes(content)
    ran = moa.run("ask", "hi", "-f", name)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith(f"moa: {name}: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert upstream.requests == []


def test_images_that_are_too_large_together_are_refused(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "large.png").write_bytes(png(more=b"\0" * 9_000_000))
    ran = moa.run("ask", *("-f", "large.png") * 4)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "together they may have 30,000,000" in ran.err
    assert upstream.requests == []


def test_what_is_piped_in_and_is_no_text_can_be_attached(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", stdin=PNG)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "to attach it, pass `-f -`" in ran.err
    assert moa.run("ask", "hi", "-f", "-", stdin=PNG).code == 0
    assert seen(upstream, "agg") == [True]


LISTED: list[str | Mapping[str, object]] = [
    {"id": "a", "architecture": {"input_modalities": ["text", "image"]}},
    {"id": "b", "capabilities": {"vision": False}},
    {"id": "c", "type": "vlm"},
    {"id": "agg", "architecture": {"input_modalities": ["text"]}},
]


def test_a_model_that_is_listed_as_blind_reads_that_there_is_an_image(tmp_path: Path) -> None:
    with Upstream(api_key=KEY, models=LISTED) as upstream:
        moa = Moa(tmp_path, upstream.url)
        (moa.folder / "photo.png").write_bytes(PNG)
        assert moa.run("ask", "What is it?", "-f", "photo.png").code == 0
        sights = {model: seen(upstream, model) for model in ("a", "b", "c", "agg")}
        assert sights == {"a": [True], "b": [False], "c": [True], "agg": [False]}
        for model in ("b", "agg"):
            assert upstream.chats(model)[0].messages[-1]["content"] == TEXT


@pytest.mark.parametrize("output", [(), ("--json",)])
def test_images_are_refused_before_anything_is_sent_if_no_model_sees_them(
    moa: Moa, upstream: Upstream, output: tuple[str, ...]
) -> None:
    moa.profile("blind", "gpt-3.5-turbo", aggregator="deepseek-chat")
    ran = moa.run("ask", "hi", "-f", "photo.png", "-p", "blind", *output)
    assert ran.code == 2
    said = "no model of the profile can see the image: lab:gpt-3.5-turbo, lab:deepseek-chat"
    assert said in ran.err
    assert "Traceback" not in ran.err
    if output:
        assert json.loads(ran.out)["error"]["kind"] == "ImagesNotSeen"
    assert upstream.chats() == []


def test_such_a_refusal_is_one_line_without_a_key_too(moa: Moa) -> None:
    blind = "deepseek-ai/DeepSeek-V3"
    ran = moa.run("ask", "hi", "-f", "photo.png", "-m", blind, "-a", blind)
    assert ran.code == 2
    [_header, refused] = ran.err.splitlines()
    assert refused.startswith("moa: no model of the profile can see the image: ")


@pytest.mark.parametrize("known", ["gpt-4o", "claude-sonnet-4-5", "qwen2.5-vl-72b-instruct"])
def test_one_model_that_sees_is_enough(moa: Moa, upstream: Upstream, known: str) -> None:
    moa.profile("mixed", "gpt-3.5-turbo", known, aggregator="deepseek-chat")
    assert moa.run("ask", "hi", "-f", "photo.png", "-p", "mixed").code == 0
    assert seen(upstream, known) == [True]
    assert seen(upstream, "gpt-3.5-turbo") == seen(upstream, "deepseek-chat") == [False]


REFUSALS = [
    (400, "Invalid content type. image_url is only supported by certain models."),
    (400, "This model does not support image input"),
    (400, "Model do not support image input."),
    (400, "unknown variant `image_url`, expected `text`"),
    (422, "Failed to deserialize: unknown variant 'image_url', expected 'text'"),
    (404, "No endpoints found that support image input"),
    (400, "lab-1 is not a multimodal model"),
    (400, "At most 0 image(s) may be provided in one request."),
    (400, "'messages.0' : for 'role:user' the following must be satisfied[('messages.0.content' : "
     "value must be a string)]"),
    (400, "messages.0.user.content.str: Input should be a valid string"),
    (500, "image input is not supported - hint: you may need to provide the mmproj"),
    (500, "this model is missing data required for image input"),
    (400, "Image input is not enabled for this model"),
    (400, "Model does not support vision"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message"), REFUSALS)
def test_a_model_that_refuses_images_is_asked_once_again_without(
    moa: Moa, upstream: Upstream, status: int, message: str
) -> None:
    upstream.enqueue("a", refusal(message, status))
    upstream.enqueue("agg", refusal(message, status))
    ran = moa.run("ask", "What is it?", "-f", "photo.png")
    assert (ran.code, ran.text) == (0, "ok\n")
    assert seen(upstream, "a") == seen(upstream, "agg") == [True, False]
    assert upstream.chats("a")[1].messages[-1]["content"] == TEXT
    assert seen(upstream, "b") == [True]


@pytest.mark.parametrize(
    "message",
    [
        "You uploaded an unsupported image. Please make sure your image is in a valid format.",
        "Image does not match the provided media type image/png",
        "image exceeds 5 MB maximum",
        "Could not process image: the image cannot be decoded",
        "This image format is not supported",
    ],
)
def test_what_an_endpoint_says_of_this_image_is_told(
    moa: Moa, upstream: Upstream, message: str
) -> None:
    for model in ("a", "b", "c"):
        upstream.always(model, refusal(message))
    ran = moa.run("ask", "What is it?", "-f", "photo.png")
    assert ran.code == 1
    assert message.split(":")[0] in ran.err
    assert seen(upstream, "a") == [True]


def test_a_conversation_goes_on_with_its_images(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "What is it?", "-f", "photo.png").code == 0
    assert moa.run("ask", "-c", "And its colour?").code == 0
    messages = upstream.chats("a")[-1].messages
    assert images(messages[0]) == [data_uri(PNG)]
    assert [message["content"] for message in messages[1:]] == ["ok", "And its colour?"]
    assert moa.run("ask", "--remerge", "-a", "lab:other").code == 0
    assert [images(message) for message in upstream.chats("other")[0].messages[1:]] == [
        [data_uri(PNG)],
        [],
        [],
    ]


def test_a_remerged_turn_shows_the_aggregator_its_image(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "What is it?", "-f", "photo.png").code == 0
    assert moa.run("ask", "--remerge").code == 0
    assert seen(upstream, "agg") == [True, True]
    assert moa.run("ask", "-c", "Again?").code == 0
    assert images(upstream.chats("agg")[-1].messages[1]) == [data_uri(PNG)]


@pytest.mark.parametrize("placement", ["system", "user"])
def test_references_do_not_take_the_place_of_images(
    moa: Moa, upstream: Upstream, placement: str
) -> None:
    moa.profile("lab", "a", reference_placement=placement)
    assert moa.run("ask", "What is it?", "-f", "photo.png").code == 0
    assert seen(upstream, "agg") == [True]
    last = json.dumps(upstream.chats("agg")[0].messages)
    assert "1. ok" in last
    assert "What is it?" in last


def estimated(moa: Moa, *arguments: str) -> int:
    """Tokens of the prompts of the first round."""
    values: dict[str, Any] = json.loads(moa.run("ask", "--estimate", "--json", *arguments).out)
    return int(values["layers"][0]["prompt_tokens"])


def test_an_image_counts_as_eight_hundred_tokens_whatever_its_size(moa: Moa) -> None:
    (moa.folder / "large.png").write_bytes(png(more=b"\0" * 1_000_000))
    without = estimated(moa, "What is it?\n[image: photo.png]")
    assert estimated(moa, "What is it?", "-f", "photo.png") == without + 3 * 800
    assert estimated(moa, "What is it?", "-f", "large.png") == without + 3 * 800


@pytest.mark.parametrize("output", [("--json",), ("--output", "jsonl"), ("-v",), ("--debug",)])
def test_the_data_of_an_image_is_nowhere_in_what_is_printed(
    moa: Moa, upstream: Upstream, output: tuple[str, ...]
) -> None:
    upstream.enqueue("a", refusal(f"bad request: {data_uri(PNG)}"))
    ran = moa.run("ask", "What is it?", "-f", "photo.png", *output)
    assert ran.code == 0
    printed = ran.text + ran.err
    assert data_uri(PNG)[22:60] not in printed
    if output != ("-v",):
        assert f"data:image/png;base64,… ({len(PNG):,} bytes)" in printed


def test_a_dry_run_shows_the_text(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "--dry-run", "What is it?", "-f", "photo.png")
    assert "    What is it?\n    [image: photo.png]\n" in ran.text
    assert upstream.requests == []


def test_a_file_that_stands_in_the_prompt_is_told_of(moa: Moa) -> None:
    for name in ("one.txt", "two notes.txt"):
        (moa.folder / name).write_text("words", "utf-8")
    told = "moa: two notes.txt is a word of the prompt; to attach the file: -f 'two notes.txt'"
    ran = moa.run("ask", "two notes.txt", "which?", "-f", "one.txt")
    assert (ran.code, told in ran.err.splitlines()) == (0, True)
    # Without other files, the name of one is what the question is about.
    assert "attach" not in moa.run("ask", "two notes.txt", "which?").err
    assert "attach" not in moa.run("ask", "-q", "two notes.txt", "-f", "one.txt").err
