"""`POST /v1/completions`: texts in, texts out."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.support.client_requests import client_requests
from tests.support.server import Server, chunks
from tests.support.upstream import Reply, Upstream


def complete(server: Server, **fields: Any) -> Any:
    body = {"model": "moa", "prompt": "Rain?", **fields}
    return server.http.post(f"{server.url}/completions", json=body)


def test_a_prompt_is_asked_as_a_message_of_the_user(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="Yes, soon."))
    body = complete(server, temperature=0.5, max_tokens=300).json()
    assert (body["object"], body["model"]) == ("text_completion", "moa")
    assert body["id"].startswith("cmpl-")
    (choice,) = body["choices"]
    assert choice == {
        "text": "Yes, soon.",
        "index": 0,
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["usage"]["total_tokens"] > 0
    assert body["moa"]["calls"] == len(upstream.chats())
    asked = upstream.chats("agg")[-1]
    assert asked.messages[-1] == {"role": "user", "content": "Rain?"}
    assert (asked.body["temperature"], asked.body["max_tokens"]) == (0.5, 300)


def test_a_stream_brings_the_text_in_pieces(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["Yes", ", soon"], finish_reason="length"))
    told = chunks(complete(server, stream=True, stream_options={"include_usage": True}).text)
    texts = [choice["text"] for chunk in told for choice in chunk["choices"]]
    assert "".join(texts) == "Yes, soon"
    assert told[-2]["choices"][0]["finish_reason"] == "length"
    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["total_tokens"] > 0
    assert "moa" in told[-1]


def test_the_prompt_stands_before_the_reply_where_it_is_wanted(
    server: Server, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="Yes."))
    assert complete(server, echo=True).json()["choices"][0]["text"] == "Rain?Yes."
    told = chunks(complete(server, echo=True, stream=True, n=2).text)
    texts = {0: "", 1: ""}
    for chunk in told:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == {0: "Rain?Yes.", 1: "Rain?Yes."}


def test_log_probabilities_have_the_form_of_this_wire(server: Server, upstream: Upstream) -> None:
    likely = [{"token": "ok", "logprob": -0.25}, {"token": "no", "logprob": -2.0}]
    tokens = [{**likely[0], "top_logprobs": likely}, {"token": "!", "logprob": -1.0}]
    choice = {"index": 0, "delta": {"content": "ok!"}, "logprobs": {"content": tokens}}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = "".join(f"data: {json.dumps({'choices': [each]})}\n\n" for each in (choice, end))
    upstream.always("agg", Reply(raw=events.encode() + b"data: [DONE]\n\n"))
    told = complete(server, logprobs=2).json()["choices"][0]["logprobs"]
    assert told == {
        "tokens": ["ok", "!"],
        "token_logprobs": [-0.25, -1.0],
        "top_logprobs": [{"ok": -0.25, "no": -2.0}, {}],
        "text_offset": [0, 2],
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1, "echo": True, "max_tokens": 1}, "logprobs"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"temperature": 9}, "temperature"),
        ({"model": None}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused(server: Server, fields: Any, param: str) -> None:
    answer = complete(server, **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_openai_s_own_library_completes(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="Yes."))
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        assert client.completions.create(model="moa", prompt="Rain?").choices[0].text == "Yes."
        stream = client.completions.create(model="moa", prompt=["Rain?"], stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == "Yes."


def test_requests_of_released_clients_are_answered(server: Server) -> None:
    rows = client_requests("/v1/completions")
    assert rows
    for row in rows:
        assert complete(server, **{**row["body"], "model": "moa"}).status_code == 200, row["client"]
