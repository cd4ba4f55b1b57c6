"""Replies that have to be JSON, as clients ask for them and get them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.upstream import Reply, Request, Upstream

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA, "strict": True}}
GOOD = '{"city": "Graz", "people": 300000}'
WRONG = '{"city": "Graz"}'


@pytest.fixture
def server(moa: Moa) -> Iterator[Server]:
    with serving(moa) as running:
        yield running


def test_a_reply_is_asked_for_once_more_and_both_calls_are_counted(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=f"```json\n{GOOD}\n```"))
    reply = server.ask(response_format=FORMAT).json()
    assert reply["choices"][0]["message"]["content"] == GOOD
    assert reply["moa"]["calls"] == 5
    assert reply["usage"]["prompt_tokens"] == sum(call.usage[0] for call in upstream.requests)
    assert [call.body.get("response_format") for call in upstream.chats("agg")] == [FORMAT] * 2
    assert all("response_format" not in call.body for call in upstream.chats("a"))


def test_a_streamed_reply_comes_in_one_piece_once_it_is_right(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(chunks=list(WRONG)), Reply(chunks=list(GOOD)))
    with server.streaming(response_format=FORMAT) as response:
        streamed = chunks(response.read().decode())
    texts = [
        choice["delta"]["content"]
        for chunk in streamed
        for choice in chunk["choices"]
        if choice["delta"].get("content")
    ]
    assert texts == [GOOD]


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_stays_wrong_is_a_named_error(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    upstream.enqueue("a", Reply(status=401))
    upstream.always("agg", Reply(text="Graz is a town."))
    response = server.ask(response_format=FORMAT, stream=stream)
    if response.headers["content-type"].startswith("text/event-stream"):
        assert stream
        last = [line for line in response.text.split("\n") if line.startswith("data: ")][-1]
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert response.status_code == 502
        assert response.headers["x-should-retry"] == "false"
        error = response.json()["error"]
    assert error["code"] == "invalid_structured_output"
    assert error["message"].startswith("lab:agg: its answer is not the JSON that was asked for")
    assert error["message"].count("it is not JSON") == 1
    assert "Graz is" not in response.text
    assert len(upstream.chats("agg")) == 2


def test_each_choice_is_checked(server: Server, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text=GOOD), Reply(text=WRONG), Reply(text=GOOD))
    reply = server.ask(response_format=FORMAT, n=2).json()
    assert [choice["message"]["content"] for choice in reply["choices"]] == [GOOD, GOOD]
    assert len(upstream.chats("a")) == 1


def test_plain_text_is_plain_text(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="Graz."))
    reply = server.ask(response_format={"type": "text"}).json()
    assert reply["choices"][0]["message"]["content"] == "Graz."
    assert "response_format" not in upstream.chats("agg")[0].body


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strin"}, "type"),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "$ref"),
        ({"properties": {"a": {"required": 1}}}, "properties.a.required"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_before_anything_is_asked(
    server: Server, upstream: Upstream, schema: dict[str, Any], place: str
) -> None:
    named = {"name": "a", "schema": schema}
    refused = server.ask(response_format={"type": "json_schema", "json_schema": named})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == f"response_format.json_schema.schema.{place}"
    assert upstream.requests == []


def test_the_messages_api_has_it_too(server: Server, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=GOOD))
    body = {
        "model": "moa",
        "max_tokens": 100,
        "messages": QUESTION,
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    reply = server.http.post(f"{server.url}/messages", json=body).json()
    assert [part["text"] for part in reply["content"] if part["type"] == "text"] == [GOOD]


def test_the_responses_api_has_it_too(server: Server, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=GOOD))
    form = {"type": "json_schema", "name": "town", "schema": SCHEMA}
    body = {"model": "moa", "input": "why?", "text": {"format": form}}
    reply = server.http.post(f"{server.url}/responses", json=body).json()
    assert reply["output"][-1]["content"][0]["text"] == GOOD
    upstream.always("agg", Reply(text=WRONG))
    failed = server.http.post(f"{server.url}/responses", json=body)
    assert failed.status_code == 502
    assert failed.json()["error"]["code"] == "invalid_structured_output"
    body["text"] = {"format": {**form, "schema": {"type": "strin"}}}
    refused = server.http.post(f"{server.url}/responses", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "text.format.schema.type"


class Garbling:
    """An aggregator that garbles one answer in five, in one of many ways."""

    WAYS = (
        WRONG,
        "Graz has 300,000 people.",
        f"Sure! {GOOD}",
        f"```json\n{GOOD}\n```\nThere you are.",
        GOOD[:-4],
        GOOD.replace("300000", '"many"'),
        GOOD.replace("}", ', "river": "Mur"}'),
        "[]",
        '{"city": NaN, "people": 1}',
        "{'city': 'Graz', 'people': 300000}",
    )

    def __init__(self) -> None:
        self._dice = random.Random(14)
        self.answers: Counter[str] = Counter()

    def __call__(self, request: Request) -> str:
        answer = self._dice.choice(self.WAYS) if self._dice.random() < 0.2 else GOOD
        [prompt] = [m["content"] for m in request.messages if m["content"].startswith("Question ")]
        self.answers[prompt] += 1
        return answer


@pytest.mark.slow
def test_a_thousand_requests_over_an_endpoint_that_garbles_one_in_five(
    moa: Moa, upstream: Upstream
) -> None:
    garbling = Garbling()
    upstream.always("agg", Reply(text=garbling))
    moa.profile("lab", "a", "b")

    with serving(moa, "--concurrency", "16", "--queue", "1000") as server:

        def ask(number: int) -> str:
            """The text of the reply, or the code of the error."""
            response = server.ask(
                messages=[{"role": "user", "content": f"Question {number}"}],
                response_format=FORMAT,
                stream=number % 3 == 0,
            )
            asked = garbling.answers[f"Question {number}"]
            assert 1 <= asked <= 2
            if response.headers["content-type"] == "application/json":
                reply = response.json()
                if response.status_code == 502:
                    return str(reply["error"]["code"])
                assert reply["moa"]["calls"] == 2 + asked
                return str(reply["choices"][0]["message"]["content"])
            lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: {")]
            events = [json.loads(line) for line in lines]
            if "error" in events[-1]:
                return str(events[-1]["error"]["code"])
            choices = [choice for event in events for choice in event["choices"]]
            return "".join(choice["delta"].get("content") or "" for choice in choices)

        with ThreadPoolExecutor(16) as pool:
            found = Counter(pool.map(ask, range(1000)))
    assert found.keys() == {GOOD, "invalid_structured_output"}
    assert found.total() == 1000
    # One in five is garbled, and one in five of what is asked for again.
    assert 10 <= found["invalid_structured_output"] <= 90
    assert sum(garbling.answers.values()) == len(upstream.chats("agg"))
    assert 1100 <= len(upstream.chats("agg")) <= 1300
