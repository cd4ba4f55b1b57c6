"""HTTP/1.1 as servers speak it, byte for byte, and which proxy an address takes."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from moa_cli.clients.http.proxies import find_proxy
from moa_cli.clients.http.transport import HttpTransport
from moa_cli.clients.transport import (
    BadAddress,
    BadSetting,
    Broken,
    RedirectLoop,
    Refused,
    TransportError,
    Unreadable,
)

OK = b"HTTP/1.1 200 OK\r\n"
TEXT = b"the whole of a body, " * 400


@contextmanager
def answering(*answers: bytes | Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """The base URL of a server that sends these bytes, one for each request, and what it was sent.

    After the last answer it hangs up.
    """
    seen: list[bytes] = []

    def serve() -> None:
        left = list(answers)
        while left:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while left and (request := _request(connection)):
                    seen.append(request)
                    pieces = left.pop(0)
                    for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                        connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def read(*answers: bytes | Sequence[bytes]) -> bytes:
    """The body of the answer to one call."""

    async def call(url: str) -> bytes:
        transport = HttpTransport(url, "k", {})
        try:
            answer = await transport.post("/chat/completions", {"model": "m"}, {})
            try:
                return await answer.read()
            finally:
                await answer.aclose()
        finally:
            await transport.aclose()

    with answering(*answers) as (url, _):
        return asyncio.run(call(url))


def sized(body: bytes, *headers: bytes) -> bytes:
    return OK + b"".join(headers) + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes) -> list[bytes]:
    framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return [OK + b"transfer-encoding: chunked\r\n\r\n", *framed, b"0\r\n\r\n"]


BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    "answer",
    [
        sized(TEXT),
        chunked(TEXT[:7], TEXT[7:]),
        [
            piece[at : at + 1]
            for piece in chunked(TEXT[:40], TEXT[40:80])
            for at in range(len(piece))
        ],
        OK + b"\r\n" + TEXT,
        b"HTTP/1.0 200 OK\r\n\r\n" + TEXT,
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(TEXT),
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + sized(TEXT),
        b"HTTP/1.1 200\r\ncontent-length: %d\r\n\r\n" % len(TEXT) + TEXT,
        sized(gzip.compress(TEXT), b"content-encoding: gzip\r\n"),
        sized(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), b"Content-Encoding: GZIP\r\n"),
        sized(zlib.compress(TEXT), b"content-encoding: deflate\r\n"),
        sized(BARE.compress(TEXT) + BARE.flush(), b"content-encoding: deflate\r\n"),
        sized(TEXT, b"content-encoding: identity\r\n"),
    ],
)
def test_a_body_is_read_in_every_form(answer: bytes | Sequence[bytes]) -> None:
    found = read(answer)
    assert found == (TEXT if len(found) > 80 else TEXT[:80])


def test_an_empty_body_is_one() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n") == b""
    assert read(sized(b"", b"content-encoding: gzip\r\n")) == b""


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", Broken),
        (b"HTTP/1.1 200 O", Broken),
        (OK + b"content-length: 9\r\n\r\nhalf", Broken),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhalf", Broken),
        (b"SSH-2.0-OpenSSH\r\n", Unreadable),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", Unreadable),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Unreadable,
        ),
        (OK + b"x: " + b"y" * 300_000 + b"\r\n", Unreadable),
        (sized(b"no gzip", b"content-encoding: gzip\r\n"), Unreadable),
        (sized(b"x", b"content-encoding: br\r\n"), Unreadable),
    ],
)
def test_what_is_cut_or_no_http_is_never_taken_for_an_answer(
    answer: bytes, expected: type[TransportError]
) -> None:
    with pytest.raises(expected):
        read(answer)


def redirect(status: int, target: str) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % (
        status,
        target.encode(),
    )


@pytest.mark.parametrize(
    ("status", "method"),
    [(301, b"GET"), (302, b"GET"), (303, b"GET"), (307, b"POST"), (308, b"POST")],
)
def test_a_redirect_is_followed(status: int, method: bytes) -> None:
    async def call(url: str) -> bytes:
        transport = HttpTransport(url, "k", {})
        try:
            return await (await transport.post("/chat/completions", {"a": 1}, {})).read()
        finally:
            await transport.aclose()

    with answering(redirect(status, "/elsewhere?x=a b"), sized(b"there")) as (url, seen):
        assert asyncio.run(call(url)) == b"there"
    assert seen[1].startswith(method + b" /elsewhere?x=a%20b HTTP/1.1\r\n")
    assert b"authorization: Bearer k" in seen[1]
    assert seen[1].endswith(b'{"a": 1}' if method == b"POST" else b"\r\n\r\n")


def test_no_key_goes_along_to_another_host() -> None:
    async def call(url: str) -> bytes:
        transport = HttpTransport(url, "s3cret", {"x-api-key": "s3cret", "user-agent": "moa"})
        try:
            return await (await transport.post("/c", {}, {"x-own": "s3cret"})).read()
        finally:
            await transport.aclose()

    with (
        answering(sized(b"there")) as (other, seen),
        answering(redirect(307, f"{other}/c")) as (url, first),
    ):
        assert asyncio.run(call(url)) == b"there"
    assert first[0].count(b"s3cret") == 3
    assert b"s3cret" not in seen[0]
    assert b"user-agent: moa" in seen[0]


def test_a_circle_of_redirects_ends() -> None:
    with pytest.raises(RedirectLoop):
        read(*[redirect(307, "/again")] * 30)


@pytest.mark.parametrize("target", ["ftp://host/x", "http://[::1", "http://host:port/"])
def test_a_redirect_to_no_web_address(target: str) -> None:
    with pytest.raises(BadAddress):
        read(redirect(307, target))


def test_a_refusal_tells_status_body_and_headers() -> None:
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 10\r\n\r\n" + b'{"a": "b"}'
    with pytest.raises(Refused) as raised:
        read(answer)
    refusal = raised.value
    assert (refusal.status, refusal.body, refusal.headers["retry-after"]) == (429, {"a": "b"}, "7")


def test_a_header_with_a_line_break_is_not_sent() -> None:
    async def call(url: str) -> None:
        transport = HttpTransport(url, "k", {"x-a": "b\r\nx-c: d"})
        try:
            await transport.post("/c", {}, {})
        finally:
            await transport.aclose()

    with answering(sized(b"")) as (url, seen):
        with pytest.raises(BadSetting, match="x-a"):
            asyncio.run(call(url))
        assert seen == []


# --- which proxy

FAR = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p"}, "http://p:80"),
        ({"HTTPS_PROXY": "socks5://p"}, "socks5://p:1080"),
        ({"HTTPS_PROXY": "HTTP://[::1]:3"}, "http://[::1]:3"),
        ({"HTTPS_PROXY": "http://a:b@p:1"}, "http://***@p:1"),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://q:1"}, "http://q:1"),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://q:1"}, None),
        ({"all_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "http://q:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "", "NO_PROXY": "*"}, "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy(environment: dict[str, str], found: str | None) -> None:
    proxy = find_proxy(FAR, environment)
    assert (None if proxy is None else str(proxy)) == found


def test_a_header_of_a_cgi_script_names_no_proxy() -> None:
    told = {"HTTP_PROXY": "http://p:1"}
    far = "http://api.example.com"
    assert str(find_proxy(far, told)) == "http://p:1"
    assert find_proxy(far, {**told, "REQUEST_METHOD": "GET"}) is None
    lower = {"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}
    assert str(find_proxy(far, lower)) == "http://p:1"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://localhost/v1", "http://[::1]/v1", "http://127.9.9.9"]
)
def test_this_machine_is_reached_without_a_proxy(url: str) -> None:
    assert find_proxy(url, {"ALL_PROXY": "http://p:1"}) is None


@pytest.mark.parametrize(
    ("url", "entries", "excepted"),
    [
        (FAR, "example.com", True),
        (FAR, ".example.com", True),
        (FAR, "*.example.com", True),
        (FAR, "EXAMPLE.COM", True),
        (FAR, "api.example.com.", True),
        (FAR, "api.example.com:443", True),
        (FAR, "api.example.com:80", False),
        (FAR, "https://api.example.com", True),
        (FAR, "ample.com", False),
        (FAR, "other.example.com", False),
        (FAR, "10.0.0.0/8", False),
        (FAR, "x y,example.com", True),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://10.1.2.3:8000", "10.1.2.3", True),
        ("http://10.1.2.3:8000", "10.1.2.3:8000", True),
        ("http://10.1.2.3:8000", "10.1.2.3:80", False),
        ("http://10.1.2.3:8000", "11.0.0.0/8", False),
        ("http://10.1.2.3:8000", "1.2.3", False),
        ("http://[fd00::1]:8000", "fd00::/8", True),
        ("http://[fd00::1]:8000", "fd00::1", True),
        ("http://[fd00::1]:8000", "[fd00::1]", True),
        ("http://[fd00::1]:8000", "[fd00::1]:8000", True),
        ("http://[fd00::1]:8000", "[fd00::1]:80", False),
        ("http://box:8000", "box", True),
        ("http://box:8000", ",,", False),
    ],
)
def test_hosts_may_be_excepted(url: str, entries: str, excepted: bool) -> None:
    proxy = find_proxy(url, {"ALL_PROXY": "http://p:1", "NO_PROXY": entries})
    assert (proxy is None) is excepted


@pytest.mark.parametrize(
    "value",
    ["ftp://p:1", "socks4://p:1", "http://", "http://p:x", "http://a:s3cret@:1", "http://p q"],
)
def test_what_is_no_proxy_is_refused_by_the_name_of_the_variable(value: str) -> None:
    with pytest.raises(BadSetting) as raised:
        find_proxy(FAR, {"ALL_PROXY": value})
    assert raised.value.problem.startswith("ALL_PROXY: ")
    assert "s3cret" not in f"{raised.value.problem} {raised.value.hint}"
