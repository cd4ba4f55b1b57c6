"""A server's life: start, load, clients that leave, measures, and a good end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from moa_cli.core.errors import MoAError
from moa_cli.core.installation import install_command
from moa_cli.server import turns
from moa_cli.server.errors import ApiError
from moa_cli.server.run import listen
from moa_cli.server.service import ServerOptions
from tests.support.command import PATIENCE, Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.timed import run_timed
from tests.support.upstream import Reply, Upstream


def connect(server: Server) -> socket.socket:
    host, _, port = server.root.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def raw_request(**fields: Any) -> bytes:
    body = json.dumps({"model": "moa", "messages": QUESTION, **fields}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", ["proposers", "aggregator"])
def test_a_client_that_leaves_cancels_all_calls(
    server: Server, upstream: Upstream, stage: str, stream: bool
) -> None:
    stalls = Reply(text="one two three", stall_after=1)
    upstream.always("*" if stage == "proposers" else "agg", stalls)
    calls = 3 if stage == "proposers" else 1
    with connect(server) as client:
        client.sendall(raw_request(stream=stream))
        upstream.wait_for(lambda: sum(request.sent == 1 for request in upstream.chats()) >= calls)
    upstream.wait_for(lambda: upstream.in_flight == 0)
    server.wait_for_log(" 499 ")
    assert 'status="interrupted"} 1.0' in server.get("/metrics").text


def test_a_client_that_leaves_the_queue_begins_no_turn(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with serving(moa, "--max-concurrency", "1") as server:
        with connect(server) as first:
            first.sendall(raw_request())
            upstream.wait_for(lambda: upstream.in_flight == 3)
            with connect(server) as second:
                second.sendall(raw_request())
                wait_until(lambda: "moa_queue_length 1.0" in server.get("/metrics").text)
            server.wait_for_log(" 499 ")
        upstream.wait_for(lambda: upstream.in_flight == 0)
        assert len(upstream.chats()) == 3
        upstream.always("*", Reply())
        assert server.ask().status_code == 200
        assert "moa_turns_in_flight 0.0" in server.get("/metrics").text


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listens(server: Server) -> bool:
    try:
        connect(server).close()
    except OSError:
        return False
    return True


def test_turns_queue_and_beyond_that_are_refused(moa: Moa, upstream: Upstream) -> None:
    gate = threading.Event()
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="done", after=gate))
    with serving(moa, "--max-concurrency", "2", "--queue", "3") as server:
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(server.ask) for _ in range(5)]
            wait_until(lambda: "moa_queue_length 3.0" in server.get("/metrics").text)
            assert "moa_turns_in_flight 2.0" in server.get("/metrics").text
            refused = server.ask()
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "server_busy"
            gate.set()
            assert {answer.result().status_code for answer in asked} == {200}
        assert server.ask().status_code == 200
    assert upstream.peak <= 2


def test_many_streams_at_once_are_each_whole_and_in_order(moa: Moa, upstream: Upstream) -> None:
    def text(request: Any) -> str:
        mark = request.messages[-1]["content"]
        return " ".join(f"{mark}.{place}" for place in range(30))

    upstream.always("agg", Reply(text=text, pause=0.001))

    def ask(number: int) -> str:
        said = [{"role": "user", "content": f"q{number}"}]
        url = f"{server.url}/chat/completions"
        body = {"model": "moa", "messages": said, "stream": True}
        with httpx.Client(timeout=60) as client:
            told = chunks(client.post(url, json=body).text)
        return "".join(event["choices"][0]["delta"].get("content", "") for event in told)

    with serving(moa, "--max-concurrency", "16") as server, ThreadPoolExecutor(40) as pool:
        texts = list(pool.map(ask, range(40)))
    for number, told in enumerate(texts):
        assert told == " ".join(f"q{number}.{place}" for place in range(30))


def test_a_turn_that_is_answered_counts_as_finished(server: Server, upstream: Upstream) -> None:
    refusal = {"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}
    for reply in (Reply(text=""), Reply(events=[refusal, "[DONE]"])):
        upstream.always("agg", reply)
        assert server.ask(model="lab").status_code == 200
    lines = server.get("/metrics").text.splitlines()
    turns = [line for line in lines if line.startswith("moa_turns_total")]
    assert turns == ['moa_turns_total{model="lab",status="finished"} 2.0']
    assert 'moa_model_failures_total{kind="AnswerRefused",model="lab:agg"} 1.0' in lines


def test_metrics_count_turns_tokens_layers_and_failures(server: Server, upstream: Upstream) -> None:
    upstream.always("b", Reply(status=500))
    assert server.ask().status_code == 200
    server.ask(moa={"proposers": ["lab:b", "lab:a"]})
    upstream.always("no-such", Reply(status=500))
    assert server.ask(moa={"proposers": ["lab:no-such", "lab:a"]}).status_code == 200
    upstream.always("agg", Reply(status=500))
    assert server.ask(model="lab").status_code == 502
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert 'moa_turns_total{model="moa",status="finished"} 3.0' in lines
    assert 'moa_turns_total{model="lab",status="failed"} 1.0' in lines
    assert 'moa_layer_seconds_count{layer="1"} 4.0' in lines
    assert 'moa_layer_seconds_count{layer="aggregator"} 3.0' in lines
    assert 'moa_model_failures_total{kind="ServerFailed",model="lab:b"} 3.0' in lines
    assert 'moa_model_failures_total{kind="ServerFailed",model="other"} 1.0' in lines
    prompt, completion = upstream.usage_total
    assert f'moa_tokens_total{{kind="prompt"}} {prompt}.0' in lines
    assert f'moa_tokens_total{{kind="completion"}} {completion}.0' in lines
    assert "no-such" not in response.text


def test_the_log_has_a_line_a_request(moa: Moa) -> None:
    with serving(moa, "--log-format", "json") as server:
        answer = server.ask(headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        odd = server.ask(headers={"x-request-id": 'a"b c'}, model="none\n\x1b")
        assert odd.headers["x-request-id"].startswith("req_")
        server.wait_for_log(odd.headers["x-request-id"])
        assert server.end() == 0
        lines = [json.loads(line) for line in server.log]
    assert "listening on http://127.0.0.1:" in lines[0]["message"]
    told = next(line for line in lines if line.get("id") == "mine-1")
    assert told.pop("seconds") > 0
    assert told.pop("time").endswith("Z")
    usage = answer.json()["usage"]
    assert told == {
        "id": "mine-1",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "model": "moa",
        "stream": False,
        "calls": 4,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cost": None,
        "code": None,
    }
    refused = next(line for line in lines if line.get("status") == 404)
    assert (refused["model"], refused["code"]) == (None, "model_not_found")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_turns_end_well_after_the_signal(moa: Moa, upstream: Upstream, number: int) -> None:
    go_on = threading.Event()
    upstream.always("agg", Reply(text="one two three", stall_after=1, go_on=go_on))
    with serving(moa) as server:
        with server.streaming() as response:
            lines = response.iter_lines()
            next(line for line in lines if '"one "' in line)
            server.process.send_signal(number)
            server.wait_for_log("stopping; 1 running turn,")
            wait_until(lambda: not listens(server))
            go_on.set()
            rest = list(lines)
        assert "data: [DONE]" in rest
        assert server.process.wait(timeout=PATIENCE) == 0


def test_a_turn_that_asks_too_late_is_refused(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    arguments = ["--max-concurrency", "1", "--grace", "0.5"]
    with serving(moa, *arguments) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.ask)
        upstream.wait_for(lambda: upstream.in_flight == 3)
        second = pool.submit(server.ask)
        wait_until(lambda: "moa_queue_length 1.0" in server.get("/metrics").text)
        assert server.end() == 0
        for asked in (first, second):
            response = asked.result()
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "server_stopping"
    assert len(upstream.chats()) == 3
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_after_the_grace_a_stream_ends_in_an_error(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two", stall_after=1))
    with serving(moa, "--grace", "0.3") as server:
        with server.streaming() as response:
            lines = response.iter_lines()
            next(line for line in lines if '"one "' in line)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data")]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "server_stopping"
        assert server.process.wait(timeout=PATIENCE) == 0


def test_a_second_signal_ends_at_once(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with serving(moa, "--grace", "600") as server, connect(server) as client:
        client.sendall(raw_request(stream=True))
        upstream.wait_for(lambda: upstream.in_flight == 3)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        assert server.end(signal.SIGINT) == 130
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_a_port_in_use_is_one_line(moa: Moa, server: Server) -> None:
    port = server.root.rpartition(":")[2]
    ran = moa.run("serve", "--port", port)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith(f"moa: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert ran.err.count("\n") == 1


def test_a_port_is_taken_from_the_start() -> None:
    with listen(ServerOptions(port=0), keyed=False) as first:
        port = first.getsockname()[1]
        # The first server does not answer yet.
        with pytest.raises(MoAError, match=f"cannot listen on 127.0.0.1:{port}: Address already"):
            listen(ServerOptions(port=port), keyed=False)


def test_without_the_extra_one_line_says_what_to_install(moa: Moa, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['starlette'] = None\n")
    path = f"{tmp_path}:{moa.environment['PYTHONPATH']}"
    ran = moa.run("serve", env={"PYTHONPATH": path})
    assert ran.code == 1
    assert ran.err == (
        f"moa: the server is not installed (install it with: {install_command('serve')})\n"
    )


def test_a_head_that_grows_without_end_is_refused(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        answer = b""
        with pytest.raises(OSError):  # noqa: PT012
            for number in range(100_000):
                client.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
            answer = client.recv(100)
            raise OSError
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    with connect(server) as client:
        client.sendall(b"GET /" + b"y" * 60_000)
        time.sleep(0.1)
        client.sendall(b"y" * 60_000)
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert server.get("/health").status_code == 200


def test_garbage_is_no_request_and_leaves_no_trace(server: Server) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 99):
        with connect(server) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100)[:12] in (b"HTTP/1.1 400", b"")
    assert server.get("/health").status_code == 200
    assert len(server.log) <= 2


def test_connections_are_used_again(server: Server) -> None:
    with connect(server) as client:
        for _ in range(3):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", [b"Upgrade", b"UPGRADE"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_of_another_protocol_is_not_taken(
    server: Server, upstream: Upstream, name: bytes, chunked: bool
) -> None:
    """Java's HTTP client and `curl --http2` offer HTTP/2 with each request, also with a body."""
    question = [{"role": "user", "content": "\nupgrade: why?"}]
    head, end, body = raw_request(messages=question).partition(b"\r\n\r\n")
    if chunked:
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    offer = b"\r\nConnection: Upgrade, HTTP2-Settings\r\n%s: h2c\r\nHTTP2-Settings: AAMA" % name
    whole = head + offer + end + body
    with connect(server) as client:
        # All at once, the head before the body, and the head in two pieces.
        for cut in (0, len(whole) - len(body), len(head) + 2):
            client.sendall(whole[:cut])
            time.sleep(0.05)
            client.sendall(whole[cut:])
            answer = b""
            while b'"choices"' not in answer or not answer.endswith(b"}"):
                answer += client.recv(10_000)
                assert answer.startswith(b"HTTP/1.1 200"), answer
            assert upstream.chats("a")[-1].messages == question


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/v1/chat/completions", "text/plain", 415),
        ("/v1/chat/completions", "application/json", 413),
        ("/v1/nothing", "application/json", 404),
    ],
)
def test_a_client_that_still_sends_gets_the_refusal(
    moa: Moa, connection: str, path: str, kind: str, status: int
) -> None:
    body = b"x" * 8_000_000
    headers = {"content-type": kind, "connection": connection}
    with serving(moa, "--max-body", "1000000") as server:
        with closing(HTTPConnection(server.root.removeprefix("http://"), timeout=60)) as client:
            for _ in range(2):
                client.request("POST", path, body, headers)
                response = client.getresponse()
                assert response.status == status
                assert b'"error"' in response.read()
        # A client that never ends does not hold up the end of the server.
        with connect(server) as endless:
            endless.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
            assert endless.recv(12) == b"HTTP/1.1 404"
            began = time.monotonic()
            assert server.end() == 0
            assert time.monotonic() - began < 15


@pytest.mark.parametrize(("piece", "arrives"), [(b"x" * 500_000, True), (b"x", False)])
def test_a_large_body_may_come_over_a_slow_line(piece: bytes, arrives: bool) -> None:
    left = 10

    async def receive() -> Message:
        nonlocal left
        # The bound is 30 seconds, and more for what comes at a fair pace.
        await asyncio.sleep(10)
        left -= 1
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    reading = turns.read_all(Headers(), receive, 10_000_000)
    if arrives:
        assert run_timed(reading) == piece * 10
        return
    with pytest.raises(ApiError) as raised:
        run_timed(reading)
    assert (raised.value.status, raised.value.code) == (408, "request_timeout")
    assert left > 0


def test_a_head_or_a_body_that_never_ends_gives_the_connection_back(server: Server) -> None:
    # The bounds are 20 and 30 seconds.
    with connect(server) as head, connect(server) as body:
        head.settimeout(60)
        body.settimeout(60)
        head.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        body.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"model"'
        )
        assert head.recv(100) == b""
        answer = b""
        while piece := body.recv(1000):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error"' in answer
    assert server.get("/health").status_code == 200
