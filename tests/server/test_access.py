"""Who may ask, and what is told to whom."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moa_cli.server.auth import origins
from moa_cli.server.loops import Address
from tests.support.command import KEY, Moa
from tests.support.network import nobody, reserved_port
from tests.support.server import QUESTION, serving
from tests.support.upstream import Reply, Upstream

FIRST, SECOND, THIRD = "sk-first-0123456789", "sk-second-0123456789", "sk-third-0123456789"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_each_of_the_keys_opens_and_nothing_else_does(moa: Moa, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the lab\n{THIRD}\n\n")
    given = ("--api-key", FIRST, "--api-key-file", str(file))
    with serving(moa, *given, env={"MOA_SERVE_API_KEY": f"{SECOND}, other-key"}) as server:
        for key in (FIRST, SECOND, THIRD, "other-key"):
            assert server.ask(headers=bearer(key)).status_code == 200
        told = ["Bearer", f"Bearer {FIRST[:-1]}", f"Bearer {FIRST},{SECOND}", "Bearer é"]
        told += [FIRST, f"Basic {FIRST}", ""]
        for value in told:
            encoded = httpx.Headers({"authorization": value}, encoding="latin-1")
            for path in ("/v1/models", "/metrics", "/v1/nothing", "/openapi.json"):
                response = server.get(path, headers=encoded)
                assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert server.ask(headers=encoded).status_code == 401
        assert server.get("/health").json() == {"status": "ok"}
        log = "\n".join(server.log)
    assert not any(key in log for key in (FIRST, SECOND, THIRD))


@pytest.mark.parametrize(
    ("encoding", "ends"), [("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-8", "\r")]
)
def test_keys_are_read_from_a_file_as_other_systems_write_it(
    moa: Moa, tmp_path: Path, encoding: str, ends: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(ends.join([FIRST, "# Schl\u00fcssel", SECOND, ""]).encode(encoding))
    with serving(moa, "--api-key-file", str(file)) as server:
        for key in (FIRST, SECOND):
            assert server.ask(headers=bearer(key)).status_code == 200
        assert server.ask(headers=bearer("# Schl")).status_code == 401


@pytest.mark.parametrize("key", [None, FIRST])
def test_the_description_asks_for_a_key_where_the_server_does(moa: Moa, key: str | None) -> None:
    with serving(moa, *(["--api-key", key] if key else []), key=key) as server:
        described = server.get("/openapi.json").json()
    assert described["security"] == ([{"key": []}] if key else [])
    assert described["paths"]["/health"]["get"]["security"] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_are_not_let_in_without_a_key(moa: Moa, host: str) -> None:
    ran = moa.run("serve", "--port", "0", "--host", host)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.count("\n") == 1
    assert "without a key" in ran.err
    for arguments, key in ((["--insecure"], None), (["--api-key", FIRST], FIRST)):
        with serving(moa, "--host", "0.0.0.0", *arguments, key=key) as server:
            assert server.ask().status_code == 200


def test_a_host_that_is_not_there_is_one_line(moa: Moa) -> None:
    ran = moa.run("serve", "--host", "no such host")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("keys", ["", "two words", "é"])
def test_a_key_that_can_be_none_is_refused(moa: Moa, tmp_path: Path, keys: str) -> None:
    (tmp_path / "keys").write_text(keys)
    ran = moa.run("serve", "--port", "0", "--api-key-file", str(tmp_path / "keys"))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert keys == "" or keys not in ran.err
    assert moa.run("serve", "--api-key-file", str(tmp_path / "none")).code == 2


def test_a_web_page_cannot_ask(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        port = server.root.rpartition(":")[2]
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"host": "evil.example"},
            {"host": f"evil.example:{port}"},
            {"host": f"127.0.0.1.evil.example:{port}"},
            {"host": "[::1"},
        ):
            assert server.ask(headers=headers).status_code == 403
        assert upstream.requests == []
        for host in ("localhost", f"LOCALHOST:{port}", f"[::1]:{port}", "127.0.0.2", "a.localhost"):
            assert server.ask(headers={"host": host}).status_code == 200
        preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        response = server.http.options(f"{server.url}/chat/completions", headers=preflight)
        assert response.status_code in (403, 405)
        assert "access-control-allow-origin" not in response.headers


def test_only_the_named_pages_may_ask(moa: Moa) -> None:
    page = "http://localhost:3000"
    with serving(moa, "--cors-origin", page) as server:
        ask = {"access-control-request-method": "POST", "access-control-request-headers": "x-a"}
        url = f"{server.url}/chat/completions"
        allowed = server.http.options(url, headers={"origin": page, **ask})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == page
        assert allowed.headers["access-control-allow-headers"] == "x-a"
        near = {"origin": page, **ask, "access-control-request-private-network": "true"}
        allowed = server.http.options(url, headers=near)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-private-network"] == "true"
        answer = server.ask(headers={"origin": page})
        assert answer.headers["access-control-allow-origin"] == page
        wrong = server.ask(headers={"origin": page}, n=0)
        assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, page)
        # Client libraries in a browser read these, and would pay for a failed turn again.
        seen = answer.headers["access-control-expose-headers"].split(", ")
        assert {"retry-after", "x-should-retry"} <= set(seen)
        other = {"origin": "http://localhost:3001"}
        assert server.http.options(url, headers={**other, **ask}).status_code == 400
        assert server.http.options(url, headers={**near, **other}).status_code == 400
        refused = server.ask(headers=other)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("typed", "page"),
    [
        ("http://localhost:3000/", "http://localhost:3000"),
        ("HTTPS://Chat.Example:443", "https://chat.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("null", "null"),
    ],
)
def test_an_origin_may_be_typed_as_an_address(typed: str, page: str) -> None:
    assert origins("--cors-origin", [typed]) == (page,)


@pytest.mark.parametrize("typed", ["localhost:3000", "http://localhost:3000/chat", "http://*", "x"])
def test_what_no_page_can_be_at_is_no_origin(moa: Moa, typed: str) -> None:
    ran = moa.run("serve", "--port", "0", "--cors-origin", typed)
    assert (ran.code, ran.err) == (
        2,
        f"moa: --cors-origin: {typed!r} is not an origin (such as http://localhost:3000)\n",
    )


def test_all_pages_need_a_key(moa: Moa) -> None:
    assert moa.run("serve", "--port", "0", "--cors-origin", "*").code == 2
    with serving(moa, "--cors-origin", "*", "--api-key", FIRST, key=FIRST) as server:
        answer = server.ask(headers={"origin": "https://somewhere.example"})
        assert answer.headers["access-control-allow-origin"] == "*"


def test_an_upstream_s_refusal_tells_no_secret(moa: Moa, tmp_path: Path) -> None:
    with Upstream(api_key="another") as locked:
        url = locked.url.replace("http://", "http://user:pass-of-url@")
        moa.configure(providers={"lab": {"base_url": url, "api_key_env": "LAB_KEY"}})
        with serving(moa) as server:
            response = server.ask()
            with server.streaming() as streamed:
                text = streamed.read().decode()
            log = "\n".join(server.log)
    assert (response.status_code, streamed.status_code) == (502, 502)
    assert response.json()["error"]["code"] == "upstream_authentication"
    for told in (response.text, text, log):
        assert not any(secret in told for secret in (KEY, "pass-of-url", "Traceback", ".py"))


def test_a_default_profile_that_leads_back_is_refused_at_the_start(moa: Moa) -> None:
    port = nobody()
    for host in ("127.0.0.1", "localhost", "[::1]", "127.0.0.9"):
        moa.configure(providers={"lab": {"base_url": f"http://{host}:{port}/v1"}})
        ran = moa.run("serve", "--port", str(port))
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "leads back to this server" in ran.err


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server of the test will listen."""
    with reserved_port() as reserved:
        yield reserved


def test_other_ways_back_are_refused_by_request(moa: Moa, upstream: Upstream, port: int) -> None:
    url = f"http://localhost:{port}/v1"
    moa.configure(
        providers={
            "lab": {"base_url": upstream.url},
            "self": {"base_url": url},
        }
    )
    moa.profile("mirror", {"model": "self:moa"}, aggregator="agg")
    with serving(moa, "--port", str(port)) as server:
        assert "mirror" not in [model["id"] for model in server.get("/v1/models").json()["data"]]
        for response in (
            server.ask(model="mirror"),
            server.ask(moa={"proposers": ["self:moa"]}),
            server.ask(moa={"aggregator": "self:moa", "rounds": 0}),
        ):
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "loop_detected"
    assert upstream.chats() == []


def test_a_way_back_through_another_server_ends_at_the_second_visit(
    moa: Moa, upstream: Upstream, tmp_path: Path, port: int
) -> None:
    other = Moa(tmp_path / "other", f"http://127.0.0.1:{port}/v1")
    other.profile("lab", aggregator="moa")
    with serving(other) as second:
        moa.configure(providers={"lab": {"base_url": second.url, "api_key_env": "LAB_KEY"}})
        moa.profile("lab", aggregator="moa")
        with serving(moa, "--port", str(port)) as first:
            response = first.ask()
            first.wait_for_log("loop_detected")
            assert len([line for line in first.log if "loop_detected" in line]) == 1
            second.wait_for_log("POST")
    assert response.status_code == 502
    assert "has already passed through this server" in response.json()["error"]["message"]


def test_a_server_may_stand_behind_another_but_not_behind_many(
    server_chain: tuple[Moa, Upstream],
) -> None:
    moa, upstream = server_chain
    with serving(moa) as server:
        chain = {"x-moa-via": "one, two, three"}
        assert server.ask(headers=chain).status_code == 200
        passed = {request.headers["x-moa-via"] for request in upstream.chats()}
        assert len(passed) == 1
        assert passed.pop().startswith("one, two, three, ")
        refused = server.ask(headers={"x-moa-via": "one, two, three, four"})
        assert refused.json()["error"]["code"] == "loop_detected"
        # What is passed on is an id, or nothing.
        server.ask(headers={"x-moa-via": "a b, <x>"})
        assert "<x>" not in str([request.headers for request in upstream.chats()])


@pytest.fixture
def server_chain(moa: Moa, upstream: Upstream) -> tuple[Moa, Upstream]:
    return moa, upstream


@pytest.mark.parametrize(
    ("listens", "url", "same"),
    [
        ("127.0.0.1", "http://localhost:8000/v1", True),
        ("127.0.0.1", "http://LOCALHOST.:8000/v1", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:8000", True),
        ("127.0.0.1", "http://0.0.0.0:8000/v1", True),
        ("127.0.0.1", "http://user:x@127.0.0.1:8000/v1", True),
        ("127.0.0.1", "http://127.0.0.1:8001/v1", False),
        ("127.0.0.1", "http://192.168.1.5:8000/v1", False),
        ("127.0.0.1", "http://localhost.example:8000/v1", False),
        ("127.0.0.1", "http://127.0.0.1:99999/v1", False),
        ("127.0.0.1", "http://[::1", False),
        ("0.0.0.0", "http://127.0.0.1:8000/v1", True),
        ("0.0.0.0", f"http://{socket.gethostname()}:8000/v1", True),
        ("::", "http://[::1]:8000/v1", True),
        ("0.0.0.0", "http://203.0.113.7:8000/v1", False),
        ("192.168.1.5", "http://192.168.1.5:8000/v1", True),
        ("192.168.1.5", "http://127.0.0.1:8000/v1", False),
    ],
)
def test_an_address_knows_its_other_names(listens: str, url: str, same: bool) -> None:
    assert Address(listens, 8000).is_at(url) is same


def test_the_log_holds_nothing_of_what_was_said(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text="reply-words"))
    question = [{**QUESTION[0], "content": "question-words"}]
    with serving(moa) as server:
        server.ask(messages=question)
        server.ask(messages=question, n=2)
        server.get("/v1/models?key=query-words")
        server.wait_for_log("GET /v1/models")
        server.get("/a%20200%200.1s%20key=ann%0Ab%C3%A4")
        server.wait_for_log("unknown_url")
        log = "\n".join(server.log)
    assert "POST /v1/chat/completions 200" in log
    # A path stays one field.
    assert " GET /a%20200%200.1s%20key=ann%0Ab%C3%A4 404 " in log
    assert not any(f"{kind}-words" in log for kind in ("reply", "question", "query"))
