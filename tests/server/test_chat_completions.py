"""A mixture answers as one model of OpenAI's would."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from tests.support.command import KEY, Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.upstream import Reply, Upstream


def test_a_reply_has_openai_s_fields_and_the_ledger(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="the merged reply", model="agg-2026"))
    upstream.always("b", Reply(status=500))
    response = server.ask()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    told = body.pop("moa")
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24,}", body.pop("id"))
    assert re.fullmatch(r"fp_[0-9a-f]{10}", body.pop("system_fingerprint"))
    assert isinstance(body.pop("created"), int)
    prompt, completion = upstream.usage_total
    assert body == {
        "object": "chat.completion",
        "model": "moa",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "the merged reply", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert (told["profile"], told["aggregator"]) == ("lab", "lab:agg")
    assert (told["answered_by"], told["calls"], told["cost"]) == ("agg-2026", 3, None)
    assert told["degraded"]
    (lost,) = told["lost"]
    assert lost.startswith("lab:b: lab failed (500): Internal Server Error")
    layers = [[call["model"] for call in layer["calls"]] for layer in told["layers"]]
    assert layers == [["lab:a", "lab:b", "lab:c"], ["lab:agg"]]
    assert told["layers"][0]["calls"][1]["error"]["kind"] == "ServerFailed"


def test_the_cost_of_a_reply_is_the_decimal_sum(moa: Moa, upstream: Upstream) -> None:
    prices = {f"lab:{model}": {"prompt": 0.1, "completion": 0.2} for model in ("a", "b", "agg")}
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}, prices=prices
    )
    moa.profile("lab", "a", "b")
    upstream.always("*", Reply(usage=(1000, 500)))
    with serving(moa, "--log-format", "json") as server:
        assert server.ask().json()["moa"]["cost"] == 0.0006
        assert '"cost": 0.0006,' in server.wait_for_log('"status": 200')


def test_a_line_of_the_log_tells_one_call_as_one(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", rounds=0)
    upstream.always("*", Reply(usage=(1000, 500)))
    with serving(moa) as server:
        server.ask()
        server.wait_for_log(" 200 .* moa 1 call 1000\\+500 tokens cost unknown$")


def test_a_stream_is_the_aggregator_s_chunks_as_they_came(
    server: Server, upstream: Upstream
) -> None:
    pieces = ["Sky", " is\n\n", "blue: ", "“é 🌍”", " \u2028 and", "."]
    upstream.always("agg", Reply(chunks=pieces, finish_reason="length"))
    with server.streaming() as response:
        text = response.read().decode()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    told = chunks(text)
    assert {event["object"] for event in told} == {"chat.completion.chunk"}
    assert (
        len({(event["id"], event["created"], event["system_fingerprint"]) for event in told}) == 1
    )
    choices = [event["choices"][0] for event in told]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    # Chunks that came together may go on as one.
    assert all(choice["delta"].keys() == {"content"} for choice in choices[1:-1])
    assert "".join(choice["delta"]["content"] for choice in choices[1:-1]) == "".join(pieces)
    assert choices[-1] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert not any("usage" in event for event in told)
    assert told[-1]["moa"]["calls"] == 4
    assert text.endswith("}\n\ndata: [DONE]\n\n")


def test_half_a_surrogate_pair_is_passed_on(server: Server, upstream: Upstream) -> None:
    deltas = ["\\ud83d", "\\ude00"]
    events = [f'{{"choices":[{{"index":0,"delta":{{"content":"{delta}"}}}}]}}' for delta in deltas]
    upstream.always("agg", Reply(events=[*events, "[DONE]"]))
    with server.streaming() as response:
        told = chunks(response.read().decode())
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in told)
    assert text in ("\U0001f600", "\ud83d\ude00")
    assert server.ask().json()["choices"][0]["message"]["content"] in ("\U0001f600", "\ud83d\ude00")


def test_the_usage_comes_in_a_chunk_of_its_own_if_it_is_asked_for(
    server: Server, upstream: Upstream
) -> None:
    with server.streaming(stream_options={"include_usage": True}) as response:
        *before, last = chunks(response.read().decode())
    assert [row["usage"] for row in before] == [None] * len(before)
    assert last["choices"] == []
    prompt, completion = upstream.usage_total
    assert last["usage"]["total_tokens"] == prompt + completion
    assert last["moa"]["calls"] == 4
    assert not any("moa" in row for row in before)


def test_tokens_come_while_the_aggregator_writes(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["first", "second"], stall_after=1))
    with server.streaming() as response:
        lines = response.iter_lines()  # kept: letting go of it would close the connection
        assert any('"content":"first"' in line for line in lines)
        assert upstream.in_flight == 1


def test_comments_tell_the_progress_while_proposers_run(server: Server, upstream: Upstream) -> None:
    secret = "words-of-a-model"
    upstream.always("a", Reply(text=secret))
    released = threading.Event()
    upstream.always("b", Reply(text=secret, after=released))
    upstream.always("c", Reply(status=400))
    lines = []
    with server.streaming() as response:
        for line in response.iter_lines():
            lines.append(line)
            if line == ": round 1: 1 of 3 answered, 1 lost":
                released.set()
    comments = [line for line in lines if line.startswith(":")]
    assert comments[0].startswith(": round 1: ")
    assert ": round 1: 1 of 3 answered, 1 lost" in comments
    assert comments[-1] == ": round 1: 2 of 3 answered, 1 lost; the reply is being written"
    assert secret not in "".join(comments)
    assert lines.index(comments[-1]) < lines.index(next(x for x in lines if x.startswith("data")))


def test_a_slow_mixture_gets_its_head_and_comments_in_time(
    server: Server, upstream: Upstream
) -> None:
    upstream.always("*", Reply(stall_after=0))
    with server.streaming() as response:
        lines = response.iter_lines()
        assert next(lines) == ": round 1: 0 of 3 answered"
        assert upstream.in_flight == 3


@pytest.mark.parametrize("asked", ["option", "request"])
def test_proposals_stream_as_reasoning_one_after_the_other(
    moa: Moa, upstream: Upstream, asked: str
) -> None:
    lost, begun = threading.Event(), threading.Event()
    upstream.always("a", Reply(text="one two three", after=lost, stall_after=1, go_on=begun))
    upstream.always("b", Reply(text="four five", after=begun))
    upstream.always("c", Reply(status=400))
    upstream.always("agg", Reply(text="merged"))
    arguments = ["--show-proposals"] if asked == "option" else []
    fields: dict[str, Any] = {} if asked == "option" else {"moa": {"show_proposals": True}}
    with serving(moa, *arguments) as server:
        lines = []
        with server.streaming(**fields) as response:
            for line in response.iter_lines():
                lines.append(line)
                # As they come: the rest of each proposal waits until its beginning is here.
                if "### lab:c" in line:
                    lost.set()
                if "one " in line:
                    begun.set()
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks("\n".join(lines))]
        whole = server.ask(**fields).json()["choices"][0]["message"]
        with server.streaming(moa={"show_proposals": False}) as response:
            assert "reasoning_content" not in response.read().decode()
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert reasoning == (
        "### lab:c (round 1)\n\n(lab refused the request (400): Bad Request"
        ")\n\n"
        "### lab:a (round 1)\n\none two three\n\n"
        "### lab:b (round 1)\n\nfour five\n\n"
    )
    assert deltas[-2] == {"content": "merged"}
    assert sorted(whole["reasoning_content"].split("###")) == sorted(reasoning.split("###"))


def test_with_the_proposals_comes_what_the_aggregator_thinks(
    server: Server, upstream: Upstream
) -> None:
    chunk: dict[str, Any] = {"index": 0, "delta": {"reasoning_content": "hm", "content": "merged"}}
    ending: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
    both = Reply(events=[{"choices": [chunk]}, {"choices": [ending]}, "[DONE]"])
    upstream.always("agg", both)
    asked = {"proposers": ["lab:a"], "show_proposals": True}
    with server.streaming(moa=asked) as response:
        told = chunks(response.read().decode())
    deltas = [chunk["choices"][0]["delta"] for chunk in told]
    whole = server.ask(moa=asked).json()["choices"][0]["message"]
    thoughts = "### lab:a (round 1)\n\nok\n\nhm"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == thoughts
    assert deltas[-2] == {"content": "merged"}
    assert whole["reasoning_content"] == thoughts
    assert whole["content"] == "merged"


def test_the_conversation_reaches_every_model(server: Server, upstream: Upstream) -> None:
    said = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {
            "role": "assistant",
            "content": "two",
            "refusal": None,
            "tool_calls": None,
            "annotations": [],
            "reasoning_content": "secret thoughts",
        },
        {"role": "user", "content": "three"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "four"}, {"type": "text", "text": "5"}],
        },
    ]
    assert server.ask(messages=said).status_code == 200
    (call,) = upstream.chats("a")
    assert call.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "user", "content": "four\n5"},
    ]


def test_sampling_fields_are_the_aggregator_s_alone(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", {"model": "lab:b", "seed": 5}, temperature=0.7, max_tokens=100)
    asked: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 7,
        "stop": ["END"],
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "reasoning_effort": "low",
    }
    with serving(moa) as server:
        assert server.ask(**asked, seed=40, user="u-1").status_code == 200
    sent = {name: upstream.chats(name)[0].body for name in ("a", "b", "agg")}
    own = ("temperature", "top_p", "max_tokens", "stop", "presence_penalty", "frequency_penalty")
    assert [sent["agg"].get(name) for name in own] == [0, 0.5, 7, ["END"], 1, -1.5]
    assert sent["agg"]["reasoning_effort"] == "low"
    for name in ("a", "b"):
        assert [sent[name].get(field) for field in own] == [0.7, None, 100, None, None, None]
        assert "reasoning_effort" not in sent[name]
    assert {name: call["seed"] for name, call in sent.items()} == {"a": 40, "b": 5, "agg": 40}
    assert {call["user"] for call in sent.values()} == {"u-1"}


def test_samples_of_a_model_get_seeds_of_their_own(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", {"model": "lab:a", "samples": 2}, "a")
    with serving(moa) as server:
        server.ask(seed=1)
    assert sorted(request.body["seed"] for request in upstream.chats("a")) == [1, 2, 3]


def test_a_request_may_change_the_mixture(server: Server, upstream: Upstream) -> None:
    mixture = {
        "rounds": 2,
        "proposers": ["lab:x", "lab:y"],
        "aggregator": "lab:z",
        "samples": 2,
        "reference_placement": "user",
    }
    body = server.ask(moa=mixture).json()
    layers = [[call["model"] for call in layer["calls"]] for layer in body["moa"]["layers"]]
    proposers = ["lab:x", "lab:x", "lab:y", "lab:y"]
    assert layers == [proposers, proposers, ["lab:z"]]
    (last,) = upstream.chats("z")
    assert [message["role"] for message in last.messages] == ["user"]
    plain = server.ask()
    assert plain.json()["moa"]["aggregator"] == "lab:agg"
    assert plain.json()["system_fingerprint"] != body["system_fingerprint"]
    assert server.ask(moa={"rounds": 0}).json()["moa"]["calls"] == 1


def test_each_profile_is_a_model(moa: Moa, upstream: Upstream) -> None:
    moa.profile("other", "x", aggregator="y", description="Another one")
    (moa.config / "profiles" / "broken.toml").write_text("rounds = 1\n")
    with serving(moa, "--rounds", "0", env={"TOGETHER_API_KEY": "x"}) as server:
        listed = server.get("/v1/models").json()
        names = [model["id"] for model in listed["data"]]
        assert names[0] == "moa"
        assert {"lab", "other", "local", "paper-moa"} <= set(names)
        # What cannot answer is not offered: it has an error, or no key.
        assert not {"broken", "openrouter"} & set(names)
        assert server.get("/v1/models/openrouter").status_code == 200
        described = server.get("/v1/models/other").json()
        assert described == next(model for model in listed["data"] if model["id"] == "other")
        assert (described["object"], described["owned_by"]) == ("model", "moa")
        assert described["description"] == "Another one"
        assert server.ask(model="other").json()["moa"]["aggregator"] == "lab:y"
        # Options are the default profile's alone.
        assert server.ask(model="moa").json()["moa"]["calls"] == 1
        assert server.ask(model="lab").json()["moa"]["calls"] == 4
        # Profiles may come while the server runs.
        moa.profile("fresh", aggregator="z")
        assert server.ask(model="fresh").json()["model"] == "fresh"
        for name in ("gpt-4o", "broken", "../profiles/lab", str(moa.config / "profiles/lab.toml")):
            response = server.ask(model=name)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"
            assert response.json()["error"]["param"] == "model"
            # Beside the name that was asked for, which may be shown shortened.
            assert str(moa.config) not in response.text.replace(name[:20], "", 1)
        assert server.get("/v1/models/gpt-4o").status_code == 404


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v1/embeddings", "offers no embeddings"),
        ("/v1/moderations", "offers no moderation"),
        ("/v1/images/generations", "offers no image generation"),
        ("/v1/audio/transcriptions", "offers no audio"),
        ("/v1/responses/resp_1", "stores nothing"),
        ("/v1/messages/batches", "stores nothing"),
        ("/v1/threads/t/messages", "stores nothing"),
        ("/api/chat", "Ollama"),
    ],
)
def test_what_a_mixture_does_not_offer_is_not_found_for_a_reason(
    server: Server, path: str, why: str
) -> None:
    response = server.http.post(server.root + path, json={"model": "moa", "input": "x"})
    assert response.status_code == 404
    assert why in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/openai/deployments/moa/chat/completions?api-version=2024-10-21", "/v1/chat/completions"),
        ("/v1/engines/moa/completions", "/v1/completions"),
        ("/v1/v1/messages?beta=true", "/v1/messages"),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/responses", "/v1/responses"),
        ("/models", "/v1/models"),
        ("/v1/health", "/health"),
    ],
)
def test_a_client_with_a_wrong_base_url_is_told_the_path_that_it_means(
    server: Server, path: str, meant: str
) -> None:
    response = server.http.post(server.root + path, json={})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"
    assert f"(did you mean {meant}? " in response.json()["error"]["message"]


def test_a_path_that_nobody_offers_is_merely_not_found(server: Server) -> None:
    response = server.http.post(f"{server.url}/made-up", json={})
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Not Found: POST /v1/made-up"


def test_the_reference_s_own_flags_work(moa: Moa, upstream: Upstream) -> None:
    arguments = ["--model", "lab:z", "--reference-models", "lab:x", "--reference-models", "lab:y"]
    arguments += ["--temperature", "0.5", "--max-tokens", "9", "--rounds", "2"]
    with serving(moa, *arguments) as server:
        told = server.ask().json()["moa"]
    layers = [[call["model"] for call in layer["calls"]] for layer in told["layers"]]
    assert layers == [["lab:x", "lab:y"]] * 2 + [["lab:z"]]
    assert {request.body["temperature"] for request in upstream.chats()} == {0.5}
    assert {request.body["max_tokens"] for request in upstream.chats()} == {9}


def test_upstreams_get_the_server_s_key_and_clients_do_not(
    server: Server, upstream: Upstream
) -> None:
    response = server.ask(messages=QUESTION)
    assert {request.headers["authorization"] for request in upstream.chats()} == {f"Bearer {KEY}"}
    assert KEY not in response.text
    assert KEY not in "\n".join(server.log)


def test_a_cut_reply_says_so_in_openai_s_words(server: Server, upstream: Upstream) -> None:
    upstream.always("b", Reply(text="from", finish_reason="max_tokens"))
    upstream.always("agg", Reply(text="half of", finish_reason="SAFETY"))
    body = server.ask().json()
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["moa"]["finish_reason"] == "SAFETY"
    assert body["moa"]["cut"] == [
        "the proposal of lab:b was cut at the token limit (max_tokens)",
        "the reply was cut by the provider's content filter",
    ]
    with server.streaming() as response:
        told = chunks(response.read().decode())
    assert told[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert told[-1]["moa"]["cut"] == body["moa"]["cut"]


def test_the_words_of_a_refusal_reach_the_client_as_such(
    server: Server, upstream: Upstream
) -> None:
    refusal = {"choices": [{"index": 0, "delta": {"refusal": "I cannot."}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    upstream.always("agg", Reply(events=[refusal, end, "[DONE]"]))
    message = server.ask().json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": "I cannot."}
    with server.streaming() as response:
        told = chunks(response.read().decode())
    deltas = [event["choices"][0]["delta"] for event in told if event["choices"]]
    assert "".join(delta.get("refusal") or "" for delta in deltas) == "I cannot."
    assert not any(delta.get("content") for delta in deltas)
