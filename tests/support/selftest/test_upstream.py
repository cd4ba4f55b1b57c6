"""The upstream does what its script says, and notices what its clients do."""

from __future__ import annotations

import gc
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.upstream import Reply, Request, Upstream

pytestmark = pytest.mark.timeout(120)


@contextmanager
def connected(up: Upstream) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(urlsplit(up.url).netloc, timeout=30)
    try:
        yield client
    finally:
        client.close()


def post(client: http.client.HTTPConnection, **body: object) -> http.client.HTTPResponse:
    key = body.pop("key", "k")
    asked = {"model": "m", "messages": [{"role": "user", "content": "one two three"}], **body}
    headers = {"Authorization": f"Bearer {key}"}
    client.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
    return client.getresponse()


def body_of(up: Upstream, reply: Reply, **body: object) -> bytes:
    up.enqueue("m", reply)
    with connected(up) as client:
        return post(client, stream=True, **body).read()


def frames_of(up: Upstream, reply: Reply, **body: object) -> list[Any]:
    lines = body_of(up, reply, **body).decode().split("\n")
    found = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def content_of(frames: list[Any]) -> list[str]:
    deltas = [c["delta"] for f in frames if f != "[DONE]" for c in f["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def test_a_stream_is_role_then_chunks_then_finish_then_done() -> None:
    with Upstream() as up:
        frames = frames_of(up, Reply(text="two\u2028lines here", reasoning=["hm"], model="real"))
    deltas = [frame["choices"][0]["delta"] for frame in frames[:-2]]
    assert deltas[:2] == [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}]
    assert "".join(content_of(frames)) == "two\u2028lines here"
    assert frames[-2]["choices"][0]["finish_reason"] == "stop"
    assert frames[-1] == "[DONE]"
    assert frames[0]["model"] == "real"


def test_a_call_without_stream_gets_one_completion_and_the_connection_serves_on() -> None:
    with Upstream() as up, connected(up) as client:
        up.enqueue("m", Reply(text="first"), Reply(text=lambda request: request.model.upper()))
        up.always("*", Reply(chunks=["de", "fault"], usage=(7, 9)))
        answers = [json.loads(post(client).read()) for _ in range(3)]
        assert up.open_connections == 1
        assert up.usage_total == (3 + 3 + 7, 1 + 1 + 9)
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts == ["first", "M", "default"]
    assert answers[2]["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}


def test_usage_comes_in_each_of_the_three_styles_or_not_at_all() -> None:
    asked = {"stream_options": {"include_usage": True}}
    tokens = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    with Upstream() as up:
        own = frames_of(up, Reply(text="a b"), **asked)
        unasked = frames_of(up, Reply(text="a b"))
        beside = frames_of(up, Reply(text="a b", usage_style="with_choices"))
        groq = frames_of(up, Reply(text="a b", usage_style="x_groq"))
        none = frames_of(up, Reply(text="a b", usage=None), **asked)
        assert up.usage_total == (15, 10)
    assert (own[-2]["choices"], own[-2]["usage"], own[0]["usage"]) == ([], tokens, None)
    assert beside[-2]["usage"] == tokens
    assert beside[-2]["choices"]
    assert groq[-2]["x_groq"] == {"usage": tokens}
    assert not any("usage" in frame for frame in unasked + none)


def test_frames_are_shaped_as_told() -> None:
    odd = Reply(events=[{"a": 1}, "{not json"], crlf=True, comments=True, no_final_blank_line=True)
    with Upstream() as up:
        raw = body_of(up, Reply(raw=b"<html>\n"))
        shaped = body_of(up, odd)
        early = frames_of(up, Reply(text="a b", end_early=True))
        tiny = frames_of(up, Reply(text="a b", byte_by_byte=True))
        up.enqueue("m", Reply(events=["\u20ac"], byte_by_byte=True))
        with connected(up) as client:
            pieces = list(iter(post(client, stream=True).read1, b""))
        assert all(r.finished and not r.disconnected for r in up.requests)
    assert raw == b"<html>\n"
    assert shaped == (
        b': keep-alive\r\n\r\nid: 1\r\ndata: {"a": 1}\r\n\r\n'
        b": keep-alive\r\n\r\nid: 2\r\ndata: {not json\r\n"
    )
    assert content_of(early) == ["a ", "b"]
    assert early[-1]["choices"][0]["finish_reason"] is None
    assert content_of(tiny) == ["a ", "b"]
    assert tiny[-1] == "[DONE]"
    assert pieces == [bytes([byte]) for byte in "data: \u20ac\n\n".encode()]


def test_errors_carry_status_headers_and_body() -> None:
    with Upstream() as up, connected(up) as client:
        up.enqueue("m", Reply(status=429, headers={"Retry-After": "2"}))
        up.enqueue("m", Reply(status=502, error="<h1>Bad Gateway</h1>"))
        limited = post(client, stream=True)
        assert (limited.status, limited.getheader("retry-after")) == (429, "2")
        assert json.loads(limited.read())["error"]["message"] == "Too Many Requests"
        gateway = post(client, stream=True)
        assert (gateway.status, gateway.getheader("content-type")) == (502, "text/html")
        assert gateway.read() == b"<h1>Bad Gateway</h1>"
        assert up.usage_total == (0, 0)


def test_a_wrong_key_is_refused_and_echoed_and_uses_up_no_script() -> None:
    with Upstream(api_key="k") as up, connected(up) as client:
        up.enqueue("m", Reply(text="kept"))
        refused = post(client, key="sk-wrong")
        assert refused.status == 401
        assert b"sk-wrong" in refused.read()
        assert b"kept" in post(client).read()


def test_unknown_models_are_404_unless_scripted_by_name() -> None:
    with Upstream(models=["a"]) as up, connected(up) as client:
        up.always("*", Reply(text="any"))
        up.always("c", Reply(text="see"))
        unknown = post(client, model="b")
        assert unknown.status == 404
        assert json.loads(unknown.read())["error"]["code"] == "model_not_found"
        assert b"any" in post(client, model="a").read()
        assert b"see" in post(client, model="c").read()
        assert [r.model for r in up.chats()] == ["b", "a", "c"]
        assert len(up.chats("a")) == 1


@pytest.mark.parametrize("bare", [False, True])
def test_models_are_listed_as_given(bare: bool) -> None:
    data: list[dict[str, object]] = [{"id": "a"}, {"id": "b", "context_length": 8}]
    with Upstream(models=["a", data[1]], models_bare=bare) as up, connected(up) as client:
        client.request("GET", "/v1/models")
        listed = json.loads(client.getresponse().read())
        assert up.requests[0].body is None
        assert up.chats() == []
    assert listed == (data if bare else {"object": "list", "data": data})


def test_a_dropped_stream_ends_in_mid_air_with_all_chunks_before_it() -> None:
    with Upstream() as up, connected(up) as client:
        up.enqueue("m", Reply(text="a b c", drop_after=2), Reply(refuse=True))
        with pytest.raises(http.client.IncompleteRead) as cut:
            post(client, stream=True).read()
        assert b'"a "' in cut.value.partial
        assert b'"b "' in cut.value.partial
        assert b'"c"' not in cut.value.partial
        client.close()
        with pytest.raises(http.client.RemoteDisconnected):
            post(client, stream=True)
        assert [(r.finished, r.disconnected, r.sent) for r in up.chats()] == [
            (True, False, 2),
            (True, False, 0),
        ]
        assert up.usage_total == (3, 2)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(delay=60),
        Reply(text="a b", stall_after=0),
        Reply(text="a b", stall_after=1),
        Reply(text="a b", stall_after=2),
        Reply(text="a b", pause=60),
        Reply(raw=b"x" * 50_000_000),
        Reply(text="word " * 2_000, byte_by_byte=True),
    ],
    ids=["delay", "head", "stall", "before finish", "pause", "unread", "bytes"],
)
def test_a_client_that_leaves_is_noticed_at_once(reply: Reply) -> None:
    with Upstream() as up:
        up.always("*", reply)
        with connected(up) as client:
            body = json.dumps({"model": "m", "stream": True})
            client.request("POST", "/v1/chat/completions", body)
            up.wait_for(lambda: up.in_flight == 1)
            time.sleep(0.05)
            assert not up.requests[0].disconnected
        # None of the replies goes on by itself so soon.
        up.wait_for(lambda: up.requests[0].disconnected and up.open_connections == 0, timeout=30)
        assert up.in_flight == 0
        assert not up.requests[0].finished


def test_a_client_may_leave_at_the_done_and_ask_again_before_the_answer_ends() -> None:
    asked = b'{"model": "m", "stream": true}'
    call = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(asked) + asked
    with Upstream() as up:
        up.always("*", Reply(pause=0.01, text="a b c", byte_by_byte=True))
        with socket.create_connection(("127.0.0.1", urlsplit(up.url).port or 0), 5) as client:
            client.sendall(call + call)
            received = b""
            while received.count(b"E\r\n1\r\n]\r\n") < 2:
                received += client.recv(4096)
        assert [r.finished for r in up.requests] == [True, True]
        up.wait_for(lambda: up.open_connections == 0)
        assert not any(r.disconnected for r in up.requests)


def test_calls_in_flight_are_counted() -> None:
    def ask() -> None:
        with connected(up) as client:
            post(client, stream=True).read()

    held = threading.Event()
    with Upstream() as up:
        up.always("*", Reply(text="a b c", after=held))
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        up.wait_for(lambda: up.in_flight == 3)
        held.set()
        for thread in threads:
            thread.join()
        assert up.peak == 3
        assert sorted(r.in_flight_at_start for r in up.chats()) == [0, 1, 2]
        ask()
        assert up.chats()[-1].in_flight_at_start == 0
        assert up.peak == 3


@pytest.mark.parametrize("function", [False, True], ids=["event", "function"])
@pytest.mark.parametrize("sent", [0, 1, 3])
def test_a_silence_ends_when_the_test_says_so(sent: int, function: bool) -> None:
    go_on = threading.Event()
    bodies: list[bytes] = []
    with Upstream() as up:
        awaited = go_on.is_set if function else go_on
        reply = Reply(text="a b c", stall_after=sent, go_on=awaited)
        asking = threading.Thread(target=lambda: bodies.append(body_of(up, reply)))
        asking.start()
        up.wait_for(lambda: up.in_flight == 1 and up.chats()[0].sent == sent)
        assert bodies == []
        go_on.set()
        asking.join()
        assert up.chats()[0].finished
    assert bodies[0].endswith(b"data: [DONE]\n\n")
    assert bodies[0].count(b'"finish_reason": "stop"') == 1


def test_more_calls_than_it_takes_at_once_are_refused() -> None:
    held = threading.Event()
    with Upstream() as up, connected(up) as first, connected(up) as second:
        up.at_once = 1
        up.enqueue("*", Reply(after=held))
        asking = threading.Thread(target=lambda: post(first).read())
        asking.start()
        up.wait_for(lambda: up.in_flight == 1)
        assert post(second).status == 429
        held.set()
        asking.join()
        assert len(up.refused) == 1
        assert up.peak == 1


def test_waiting_in_vain_tells_what_was_asked() -> None:
    with Upstream() as up, connected(up) as client:
        post(client).read()
        with pytest.raises(AssertionError, match="POST /v1/chat/completions model='m' finished"):
            up.wait_for(lambda: False, timeout=0.01)


def test_a_failing_script_fails_the_test() -> None:
    def text(request: Request) -> str:
        raise KeyError(request.model)

    def ask() -> None:
        with Upstream() as up, connected(up) as client:
            up.always("*", Reply(text=text))
            with pytest.raises(http.client.RemoteDisconnected):
                post(client)

    with pytest.raises(AssertionError, match="itself failed"):
        ask()


def test_closing_in_the_middle_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    before = threading.active_count()
    with ExitStack() as clients:
        with Upstream() as up:
            up.enqueue("m", Reply(stall_after=0), Reply(raw=b"x" * 50_000_000), Reply(delay=60))
            idle, *busy = (clients.enter_context(connected(up)) for _ in range(4))
            idle.connect()
            for client in busy:
                client.request("POST", "/v1/chat/completions", '{"model": "m", "stream": true}')
            up.wait_for(lambda: up.in_flight == 3 and up.open_connections == 4)
        assert up.open_connections == 0
        assert not any(r.disconnected or r.finished for r in up.requests)
    gc.collect()
    assert threading.active_count() == before
    assert not caplog.records


def test_it_runs_alone_until_interrupted() -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.support.upstream"]
    options = ["--delay", "0", "--pause", "0", "--models", "a,b"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command + options, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url)
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        first, second = (post(client, model=model).read().decode() for model in "ab")
        client.close()
        process.send_signal(signal.SIGINT)
        assert (process.wait(5), process.stderr.read()) == (0, "")
    assert all(mark in first for mark in ("## ", "- **", "```python", "|---|"))
    assert first != second
