"""What whoever runs a server relies on: readiness, figures, proxies, bounds."""

from __future__ import annotations

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from moa_cli.server.forwarded import client_of, trusted
from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

KEY = "sk-first-0123456789"


def test_it_is_ready_until_it_stops_and_needs_no_key_to_say_so(
    moa: Moa, upstream: Upstream
) -> None:
    go_on = threading.Event()
    upstream.always("agg", Reply(text="one two three", stall_after=1, go_on=go_on))
    with serving(moa, "--api-key", KEY, key=KEY) as server:
        ready = server.http.get(f"{server.root}/ready", headers={"authorization": ""})
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        with server.streaming() as response:
            lines = response.iter_lines()
            next(line for line in lines if '"one "' in line)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("stopping")
            # It takes no new connections; who has one is told.
            with suppress(httpx.TransportError):
                stopping = server.get("/ready")
                assert (stopping.status_code, stopping.json()) == (503, {"status": "stopping"})
            go_on.set()
            list(lines)


def test_it_is_not_ready_without_a_key_for_the_default_profile(
    moa: Moa, upstream: Upstream
) -> None:
    moa.configure(providers={"lab": {"base_url": upstream.url, "api_key_env": "NOT_SET"}})
    with serving(moa) as server:
        response = server.get("/ready")
        assert response.status_code == 503
        assert response.json() == {"status": "no key for the default profile"}
        assert server.get("/health").status_code == 200
        assert server.wait_for_log("there is no API key for lab") == (
            "moa: there is no API key for lab (set NOT_SET in the environment or in a .env file, or"
            " use a profile without it: `-p local`)"
        )
        (moa.config / ".env").write_text("NOT_SET=some-key-0123456789\n")
        upstream.wait_for(lambda: server.get("/ready").status_code == 200)


def test_figures_tell_statuses_first_tokens_turns_and_models(moa: Moa, upstream: Upstream) -> None:
    prices = {"lab:a": {"prompt": 0, "completion": 1e6}}
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, prices=prices)
    upstream.always("a", Reply(text="two words", usage=(10, 2)))
    with serving(moa) as server:
        assert server.ask().status_code == 200
        with server.streaming() as response:
            list(response.iter_lines())
        assert server.ask(model="none").status_code == 404
        assert server.get("/made/up").status_code == 404
        assert server.get("/other/path").status_code == 404
        server.get("/v1/models/lab")
        told = server.ask(moa={"proposers": ["lab:made-up"]}).json()["moa"]
        completions = 'moa_requests_total{path="/v1/chat/completions",status='
        # A request counts once it has ended, which its client may see a moment before.
        upstream.wait_for(lambda: f'{completions}"200"}} 3.0' in server.get("/metrics").text)
        lines = server.get("/metrics").text.splitlines()
    assert f'{completions}"404"}} 1.0' in lines
    assert 'moa_requests_total{path="other",status="404"} 2.0' in lines
    assert 'moa_requests_total{path="/v1/models/{name}",status="200"} 1.0' in lines
    assert "moa_first_token_seconds_count 3.0" in lines
    assert 'moa_turn_seconds_count{status="finished"} 3.0' in lines
    assert 'moa_model_calls_total{model="lab:a"} 2.0' in lines
    assert 'moa_model_tokens_total{kind="completion",model="lab:a"} 4.0' in lines
    assert 'moa_model_tokens_total{kind="prompt",model="lab:a"} 20.0' in lines
    assert 'moa_model_cost_usd_total{model="lab:a"} 4.0' in lines
    assert told["calls"] == 2
    assert 'moa_model_calls_total{model="other"} 1.0' in lines
    assert "moa_calls_in_flight 0.0" in lines
    assert "moa_calls_waiting 0.0" in lines
    assert not any("made-up" in line or "/made" in line for line in lines)


def test_calls_that_wait_are_counted(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with serving(moa, "--concurrency", "1") as server, server.streaming():
        upstream.wait_for(lambda: upstream.in_flight == 1)
        lines = server.get("/metrics").text.splitlines()
        assert "moa_calls_in_flight 1.0" in lines
        assert "moa_calls_waiting 2.0" in lines


@pytest.mark.parametrize(
    ("proxies", "forwarded", "client"),
    [
        ([], "203.0.113.9", "127.0.0.1"),
        (["10.0.0.0/8"], "203.0.113.9", "127.0.0.1"),
        (["127.0.0.1"], "203.0.113.9", "203.0.113.9"),
        # What the client itself has made up stands before.
        (["127.0.0.1"], "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8", "10.0.0.0/8"], "1.2.3.4, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        (["127.0.0.1"], "nonsense", "127.0.0.1"),
        (["127.0.0.1"], "203.0.113.9:4711", "203.0.113.9"),
        (["127.0.0.1"], "[2001:db8::1]:4711", "2001:db8::1"),
        (["127.0.0.1"], "", "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_tells_the_client(
    moa: Moa, proxies: list[str], forwarded: str, client: str
) -> None:
    given = [word for proxy in proxies for word in ("--trusted-proxy", proxy)]
    with serving(moa, "--log-format", "json", *given) as server:
        headers = {"x-forwarded-for": forwarded, "x-request-id": "mine"}
        server.get("/health", headers=headers)
        row = json.loads(server.wait_for_log('"id": ?"mine"'))
    assert row["client"] == client


def test_a_chain_of_forged_hops_ends_at_the_first_that_is_not_trusted() -> None:
    proxies = trusted("--trusted-proxy", ["10.0.0.0/8", "::1"])
    assert client_of("10.0.0.1", ["1.1.1.1, 10.9.9.9"], proxies) == "1.1.1.1"
    assert client_of("10.0.0.1", ["6.6.6.6", "1.1.1.1", "10.9.9.9"], proxies) == "1.1.1.1"
    assert client_of("::1", ["10.0.0.3"] * 100, proxies) == "10.0.0.3"
    assert client_of("::ffff:10.0.0.1", ["1.1.1.1"], proxies) == "1.1.1.1"
    assert client_of("-", ["1.1.1.1"], proxies) == "-"


def test_an_address_that_is_none_is_one_line(moa: Moa) -> None:
    ran = moa.run("serve", "--port", "0", "--trusted-proxy", "proxy.example")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith(
        "moa: --trusted-proxy: 'proxy.example' is neither an address nor a network"
    )


def test_more_messages_than_allowed_are_refused_by_name(moa: Moa, upstream: Upstream) -> None:
    with serving(moa, "--max-messages", "4") as server:
        pair: list[dict[str, Any]] = [
            {"role": "user", "content": 'a "role" and "role" again'},
            {"role": "assistant", "content": "yes"},
        ]
        assert server.ask(messages=[pair[0], *pair[::-1]]).status_code == 200
        refused = server.ask(messages=[*pair, *pair, pair[0]])
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == ("messages", "too_many_messages")
        assert "--max-messages" in error["message"]
    assert len(upstream.chats()) == 4


@pytest.mark.parametrize("status", [429, 504])
def test_a_client_does_not_try_again_by_itself_what_was_paid_for(
    moa: Moa, upstream: Upstream, status: int
) -> None:
    reply = Reply(status=429) if status == 429 else Reply(stall_after=0)
    upstream.always("agg", reply)
    with serving(moa, "--first-token", "0.5") as server:
        paid = server.ask()
        assert paid.status_code == status
        assert paid.headers["x-should-retry"] == "false"
        upstream.always("*", Reply(status=429))
        for model in ("a", "b", "c"):
            upstream.always(model, Reply(status=429))
        unpaid = server.ask()
        assert unpaid.status_code in (429, 502)
        assert unpaid.headers.get("x-should-retry") == (
            None if unpaid.status_code == 429 else "false"
        )


def test_a_turn_that_is_cut_off_with_the_server_is_not_tried_again(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(stall_after=0))
    with serving(moa, "--grace", "0.2") as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask)
        upstream.wait_for(lambda: bool(upstream.chats("agg")))
        assert server.end() == 0
        response = asked.result()
    assert response.status_code == 503
    assert response.headers["x-should-retry"] == "false"


def _names(server: Server) -> list[str]:
    return [row["id"] for row in server.get("/v1/models").json()["data"]]


def test_the_list_of_models_does_not_read_files(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        before = _names(server)
        profiles = moa.config / "profiles"
        hidden = moa.config / "hidden"
        profiles.rename(hidden)
        # Whatever becomes of the folder: the list is the one that was read.
        assert _names(server) in (before, [name for name in before if name != "lab"])
        hidden.rename(profiles)
        upstream.wait_for(lambda: _names(server) == before)


@pytest.mark.parametrize("exists", [True, False])
def test_its_figures_are_not_put_among_those_of_another_server(
    moa: Moa, upstream: Upstream, exists: bool
) -> None:
    folder = moa.folder / "figures"
    if exists:
        folder.mkdir()
    with serving(moa, env={"PROMETHEUS_MULTIPROC_DIR": str(folder)}) as server:
        assert server.ask().status_code == 200
        assert "moa_turns_total" in server.get("/metrics").text
    assert not list(moa.folder.rglob("*.db"))
