"""Images of requests go to the models that see them; of files, models read the text. What no model
can see, and what cannot be read, is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.attached import PNG, data_uri, images, pdf
from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream


def asking(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, *parts]}]


IMAGE = {"type": "image_url", "image_url": {"url": data_uri(PNG)}}


def file(data: bytes, kind: str = "application/pdf", name: str = "paper.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": data_uri(data, kind)}}


def test_the_text_of_a_file_goes_to_all_models_each_time(
    server: Server, upstream: Upstream
) -> None:
    messages = [*asking(file(pdf("A claim"))), {"role": "assistant", "content": "so"}]
    messages += asking(IMAGE, file(b"its notes", "text/plain", "notes.txt"))
    for _ in range(2):
        assert server.ask(messages=messages).status_code == 200
    for model in ("a", "agg"):
        for request in upstream.chats(model):
            said = [message["content"] for message in request.messages if message["role"] == "user"]
            assert said[0] == "what is it?\n[file: paper.pdf]\nA claim"
            assert said[1] == [
                {"type": "text", "text": "what is it?"},
                IMAGE,
                {"type": "text", "text": "notes.txt:\n```\nits notes\n```"},
            ]


def test_the_photos_of_a_phone_go_through_as_they_are(server: Server, upstream: Upstream) -> None:
    # Apps send photos of some megabytes, and all earlier ones with each message.
    photo = data_uri(PNG + bytes(4_000_000))
    parts = [{"type": "image_url", "image_url": {"url": photo}}] * 3
    answer = server.ask(messages=asking(*parts))
    assert answer.status_code == 200, answer.text
    for request in upstream.chats():
        assert images(request.messages[-1]) == [photo] * 3


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (file(b"%PDF-1.4\nbroken"), "paper.pdf: is a broken PDF file"),
        (file(pdf("")), "paper.pdf: is a PDF file without text: its pages are images"),
        (file(b"\0\1"), "paper.pdf: is not a text file"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,%%%"}}, "base64"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    server: Server, upstream: Upstream, part: dict[str, Any], said: str
) -> None:
    answer = server.ask(messages=asking(part))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in error["message"]
    assert error["code"] == "unreadable_file"
    assert upstream.chats() == []


def test_images_that_no_model_sees_are_refused_before_anything_is_sent(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "gpt-3.5-turbo", aggregator="deepseek-chat")
    with serving(moa) as server:
        answer = server.ask(messages=asking(IMAGE))
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "images_not_supported"
        assert "no model of the profile can see the image: lab:gpt-3.5-turbo" in error["message"]
        assert upstream.chats() == []
        earlier = [*asking(IMAGE), {"role": "assistant", "content": "so"}, *asking()]
        assert server.ask(messages=earlier).status_code == 200
    assert not any(images(message) for call in upstream.chats() for message in call.messages)


def test_a_model_that_refused_an_image_is_not_sent_another(
    server: Server, upstream: Upstream
) -> None:
    no = {"error": {"message": "No endpoints found that support image input"}}
    upstream.enqueue("b", Reply(status=404, error=no))
    for _ in range(2):
        assert server.ask(messages=asking(IMAGE)).status_code == 200
    seen = {
        model: [bool(images(call.messages[-1])) for call in upstream.chats(model)]
        for model in ("a", "b", "agg")
    }
    # The second request is the same: its proposals are there already.
    assert seen["b"][:2] == [True, False]
    assert not any(seen["b"][2:])
    assert seen["a"][0]
    assert seen["agg"] == [True, True]


@pytest.mark.parametrize(
    "data",
    ["aXRzIG5vdGVz", "DATA:text/plain;base64,aXRzIG5vdGVz", "data:;base64,aXRzIG5vdGVz"],
)
def test_a_file_is_read_in_whatever_form_it_comes(
    server: Server, upstream: Upstream, data: str
) -> None:
    part = {"type": "file", "file": {"filename": "notes.txt", "file_data": data, "format": "x"}}
    assert server.ask(messages=asking(part)).status_code == 200
    said = upstream.chats("agg")[-1].messages[-1]["content"]
    assert said == "what is it?\nnotes.txt:\n```\nits notes\n```"


def test_a_picture_that_comes_as_a_file_is_an_image(server: Server, upstream: Upstream) -> None:
    url = data_uri(PNG)
    whole, bare = (
        {"filename": "photo.PNG", "file_data": data} for data in (url, url.partition(",")[2])
    )
    answers = [
        server.ask(messages=asking({"type": "file", "file": sent})) for sent in (whole, bare)
    ]
    body = {"model": "moa", "input": [_user({"type": "input_file", **whole})]}
    answers.append(server.http.post(f"{server.url}/responses", json=body))
    assert [answer.status_code for answer in answers] == [200] * 3
    for request in upstream.chats("agg"):
        assert images(request.messages[-1])
    drawn = file(b"<svg/>", "image/svg+xml", "drawn.svg")
    assert server.ask(messages=asking(drawn)).status_code == 200
    assert "<svg/>" in upstream.chats("agg")[-1].messages[-1]["content"]
    broken = server.ask(
        messages=asking({"type": "file", "file": {"file_data": "data:image/png,x"}})
    )
    assert broken.json()["error"]["param"] == "messages[0].content[1].file.file_data"


def test_a_file_at_an_address_is_refused_on_each_wire(server: Server, upstream: Upstream) -> None:
    url = "https://a.test/paper.pdf"
    chat = {"type": "file", "file": {"filename": "paper.pdf", "file_data": url}}
    answers = [server.ask(messages=asking(chat))]
    for path, fields in (
        ("responses", {"input": [_user({"type": "input_file", "file_url": url})]}),
        (
            "messages",
            {
                "messages": [_user({"type": "document", "source": {"type": "url", "url": url}})],
                "max_tokens": 9,
            },
        ),
    ):
        body = {"model": "moa", **fields}
        answers.append(server.http.post(f"{server.url}/{path}", json=body))
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert "send the file itself" in answer.json()["error"]["message"]
    assert upstream.chats() == []


def test_base64_in_lines_is_sent_in_one_on_each_wire(server: Server, upstream: Upstream) -> None:
    url = data_uri(PNG)
    head, comma, data = url.partition(",")
    lines = data[:20] + "\r\n" + data[20:] + "\n"
    source = {"type": "base64", "media_type": "image/png", "data": lines}
    for path, fields in (
        (
            "chat/completions",
            {"messages": asking({"type": "image_url", "image_url": {"url": head + comma + lines}})},
        ),
        (
            "responses",
            {"input": [_user({"type": "input_image", "image_url": head + comma + lines})]},
        ),
        ("messages", {"messages": [_user({"type": "image", "source": source})], "max_tokens": 9}),
    ):
        answer = server.http.post(f"{server.url}/{path}", json={"model": "moa", **fields})
        assert answer.status_code == 200, answer.text
        [*_, image] = upstream.chats("agg")[-1].messages[-1]["content"]
        assert image["image_url"]["url"] == url


@pytest.mark.parametrize(
    "head", ["data:application/octet-stream", "data:None", "data:", "DATA:x/y"]
)
def test_an_image_of_an_unknown_type_is_known_by_its_content(
    server: Server, upstream: Upstream, head: str
) -> None:
    url = f"{head};base64,{data_uri(PNG).partition(',')[2]}"
    answer = server.ask(messages=asking({"type": "image_url", "image_url": {"url": url}}))
    assert answer.status_code == 200, answer.text
    assert upstream.chats("agg")[-1].messages[-1]["content"][-1] == IMAGE
    body = {"model": "moa", "input": [_user({"type": "input_image", "image_url": url})]}
    assert server.http.post(f"{server.url}/responses", json=body).status_code == 200
    assert upstream.chats("agg")[-1].messages[-1]["content"][-1] == IMAGE


def test_a_pdf_in_place_of_an_image_is_read(server: Server, upstream: Upstream) -> None:
    url = data_uri(pdf("Its words"), "application/pdf")
    answer = server.ask(messages=asking({"type": "image_url", "image_url": {"url": url}}))
    assert answer.status_code == 200, answer.text
    assert "Its words" in str(upstream.chats("a")[-1].messages[-1]["content"])
    wrong = data_uri(bytes(20), "application/octet-stream")
    refused = server.ask(messages=asking({"type": "image_url", "image_url": {"url": wrong}}))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unreadable_file")


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,", "data:image/png;base64,%%", "data:image/svg+xml,<svg/>", "data:x"],
)
def test_an_image_that_no_endpoint_takes_is_refused_before_anything_is_sent(
    server: Server, upstream: Upstream, url: str
) -> None:
    chat = server.ask(messages=asking({"type": "image_url", "image_url": {"url": url}}))
    assert (chat.status_code, chat.json()["error"]["param"]) == (
        400,
        "messages[0].content[1].image_url.url",
    )
    body = {"model": "moa", "input": [_user({"type": "input_image", "image_url": url})]}
    other = server.http.post(f"{server.url}/responses", json=body)
    assert (other.status_code, other.json()["error"]["param"]) == (
        400,
        "input[0].content[0].image_url",
    )
    assert upstream.chats() == []


def _user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}
