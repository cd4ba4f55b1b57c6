"""Proxies and certificates: every command goes the same way, and what is wrong with that is one
line that names the setting."""

from __future__ import annotations

import re
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.support.bench.own_runs import write_lines, write_prompts
from tests.support.command import KEY, Moa, Ran
from tests.support.hub import Hub, HubModel, hub
from tests.support.network import AUTHORITY, HttpProxy, Relay, SocksProxy, nobody, tls
from tests.support.server import serving
from tests.support.upstream import Upstream

# A host that does not exist: only a proxy leads there.
HOST = "api.example.test"
LOGIN = "us%40er:pa%3Ass"


def at(moa: Moa, url: str) -> None:
    """The provider is there, and the profile is one model of it."""
    moa.profile("one")
    moa.configure(
        profile="one",
        retries=3,
        providers={
            "lab": {"base_url": url, "api_key_env": "LAB_KEY"},
            "together": {"base_url": url, "api_key_env": "LAB_KEY"},
        },
    )


@pytest.fixture
def trusted(tmp_path: Path) -> dict[str, str]:
    """An environment that trusts the tests' authority."""
    file = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    return {"SSL_CERT_FILE": str(file)}


@contextmanager
def served(upstream: Upstream, context: ssl.SSLContext) -> Iterator[str]:
    """The base URL of the upstream behind TLS."""
    with Relay(upstream.url, tls=context) as relay:
        yield f"https://127.0.0.1:{relay.port}/v1"


def failed(ran: Ran, *words: str) -> None:
    """It failed in one line, beside the introduction, which has these words, and no secret."""
    assert ran.code not in (0, 2)
    assert ran.out == b""
    lines = [line for line in ran.err.splitlines() if not line.startswith("moa: profile ")]
    assert len(lines) == 1, ran.err
    for word in words:
        assert word in lines[0]
    for secret in (KEY, "pa%3Ass", "pa:ss", "us%40er"):
        assert secret not in ran.err


# --- each command, behind a proxy and with an authority of the user's own


def asks(moa: Moa, env: dict[str, str]) -> Ran:
    return moa.run("ask", "hi", env=env)


def chats(moa: Moa, env: dict[str, str]) -> Ran:
    return moa.run("chat", stdin=b"hi\n", env=env)


def lists(moa: Moa, env: dict[str, str]) -> Ran:
    return moa.run("models", "lab", env=env)


def lists_through_the_sdk(moa: Moa, env: dict[str, str]) -> Ran:
    return moa.run("models", "together", env=env)


def batches(moa: Moa, env: dict[str, str]) -> Ran:
    write_lines(moa.folder / "in.jsonl", [{"id": "q", "prompt": "hi"}])
    return moa.run("batch", "in.jsonl", "out.jsonl", env=env)


def benches(moa: Moa, env: dict[str, str]) -> Ran:
    return moa.run("bench", "run", write_prompts(moa, 1), "-y", "--arms", "mixture", env=env)


def doctors(moa: Moa, env: dict[str, str]) -> Ran:
    """Its findings go to standard output, each ERROR with the provider's name."""
    ran = moa.run("doctor", env=env)
    return Ran(ran.code, b"", ran.err + ran.text)


def sets_up(moa: Moa, env: dict[str, str]) -> Ran:
    nowhere = f"http://127.0.0.1:{nobody()}/v1"
    servers = ("OLLAMA", "LMSTUDIO", "LLAMACPP", "VLLM")
    here = {f"{server}_BASE_URL": nowhere for server in servers}
    return moa.run("setup", "--yes", env={**here, **env})


Command = Callable[[Moa, dict[str, str]], Ran]
COMMANDS: list[Command] = [
    *(asks, chats, lists, lists_through_the_sdk, batches, benches, doctors, sets_up),
]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """It wants the key, and lists a model."""
    with Upstream(api_key=KEY, models=["agg"]) as running:
        yield running


@each_command
@pytest.mark.parametrize("kind", ["connect", "plain", "socks5h"])
def test_a_proxy_is_taken(
    moa: Moa, upstream: Upstream, trusted: dict[str, str], command: Command, kind: str
) -> None:
    with Relay(upstream.url, tls=tls(HOST)) as secure:
        behind = f"https://127.0.0.1:{secure.port}"
        scheme = "http" if kind == "plain" else "https"
        at(moa, f"{scheme}://{HOST}/v1")
        inner = upstream.url if kind == "plain" else behind
        proxy = SocksProxy(inner) if kind == "socks5h" else HttpProxy(inner)
        with proxy:
            way = "socks5h" if kind == "socks5h" else "http"
            variable = "ALL_PROXY" if kind == "socks5h" else f"{scheme}_proxy"
            ran = command(moa, {**trusted, variable: f"{way}://127.0.0.1:{proxy.port}"})
    assert ran.code == 0, ran.err
    assert proxy.asked
    if kind == "plain":
        assert all(f" http://{HOST}/v1/" in line for line in proxy.asked)
    else:
        assert all(f"{HOST}:443" in line for line in proxy.asked)
    assert upstream.requests


@each_command
def test_a_dead_proxy_is_named_and_nothing_goes_around_it(
    moa: Moa, upstream: Upstream, command: Command
) -> None:
    # An address that could be reached without the proxy, if this machine were another one.
    at(moa, f"http://{HOST}/v1")
    port = nobody()
    ran = command(moa, {"ALL_PROXY": f"http://{LOGIN}@127.0.0.1:{port}"})
    assert ran.code != 0
    assert f"ALL_PROXY: the proxy http://***@127.0.0.1:{port} refuses connections" in ran.err
    assert "pa%3Ass" not in ran.err
    assert upstream.requests == []


@each_command
def test_an_authority_that_is_named_is_trusted_and_no_other(
    moa: Moa, upstream: Upstream, trusted: dict[str, str], command: Command
) -> None:
    with served(upstream, tls("127.0.0.1")) as url:
        at(moa, url)
        ran = command(moa, {})
        assert ran.code != 0
        assert "signed by an authority that is not trusted" in ran.err
        other = moa.folder / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        ran = command(moa, {"SSL_CERT_FILE": str(other)})
        assert ran.code != 0
        assert "signed by an authority that is not in SSL_CERT_FILE" in ran.err
        assert upstream.requests == []
        ran = command(moa, trusted)
    assert ran.code == 0, ran.err
    assert upstream.requests


WRONG = [
    ("HTTPS_PROXY", f"socks4://{LOGIN}@localhost", "proxies with socks4:// are not supported"),
    ("HTTPS_PROXY", f"http://{LOGIN}@:80", "is not the address of a proxy"),
    ("SSL_CERT_FILE", "/no/such/file.pem", "/no/such/file.pem: No such file or directory"),
    ("SSL_CERT_FILE", "/dev/null", "/dev/null holds no certificate"),
    ("SSL_CERT_DIR", "/no/such/folder", "/no/such/folder: No such file or directory"),
    ("SSL_CERT_DIR", "/proc/self", "/proc/self holds no certificate under the name"),
]


@each_command
@pytest.mark.parametrize(("variable", "value", "said"), WRONG)
def test_a_wrong_setting_is_named(
    moa: Moa, command: Command, variable: str, value: str, said: str
) -> None:
    at(moa, f"https://{HOST}/v1")
    ran = command(moa, {variable: value})
    assert ran.code != 0
    assert f"{variable}: {said}" in ran.err
    assert "pa%3Ass" not in ran.err


def test_the_server_goes_through_the_proxy_and_says_what_is_wrong_with_it(
    moa: Moa, upstream: Upstream, trusted: dict[str, str]
) -> None:
    at(moa, f"https://{HOST}/v1")
    with (
        Relay(upstream.url, tls=tls(HOST)) as secure,
        HttpProxy(f"https://127.0.0.1:{secure.port}") as proxy,
    ):
        way = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
        with serving(moa, env={**trusted, **way}) as server:
            assert server.ask().status_code == 200
        with serving(moa, env=way) as server:
            answer = server.ask()
            assert answer.status_code >= 500
            assert "not trusted" in answer.text
    with serving(moa, env={**trusted, "HTTPS_PROXY": f"http://127.0.0.1:{nobody()}"}) as server:
        answer = server.ask()
        assert answer.status_code >= 500
        assert "HTTPS_PROXY: the proxy http://127.0.0.1:" in answer.text


# --- models of the hub


@pytest.fixture
def served_hub() -> Iterator[Hub]:
    """It has one small model."""
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0) + b"tiny" * 50_000
    with hub(**{"Tiny-GGUF": HubModel({"tiny-Q4_K_M.gguf": content})}) as running:
        yield running


def pulls(moa: Moa, endpoint: str, env: dict[str, str]) -> Ran:
    return moa.run("models", "pull", "hf:lab/Tiny-GGUF", env={"HF_ENDPOINT": endpoint, **env})


@pytest.mark.parametrize("kind", ["connect", "plain", "socks5h"])
def test_a_model_comes_through_the_proxy(
    moa: Moa, served_hub: Hub, trusted: dict[str, str], kind: str
) -> None:
    with Relay(served_hub.url, tls=tls(HOST)) as secure:
        inner = served_hub.url if kind == "plain" else f"https://127.0.0.1:{secure.port}"
        with SocksProxy(inner) if kind == "socks5h" else HttpProxy(inner) as proxy:
            way = "socks5h" if kind == "socks5h" else "http"
            env = {**trusted, "ALL_PROXY": f"{way}://127.0.0.1:{proxy.port}"}
            ran = pulls(moa, f"{'http' if kind == 'plain' else 'https'}://{HOST}", env)
            assert ran.code == 0, ran.err
            assert proxy.asked
            if kind != "plain":
                env |= {"SSL_CERT_FILE": "", "MOA_CACHE_DIR": str(moa.folder / "other")}
                ran = pulls(moa, f"https://{HOST}", env)
                failed(ran, "signed by an authority that is not trusted", "set SSL_CERT_FILE")
    assert len(served_hub.sent) == 1


@pytest.mark.parametrize(("variable", "value", "said"), WRONG)
def test_a_model_is_not_fetched_where_a_setting_is_wrong(
    moa: Moa, variable: str, value: str, said: str
) -> None:
    failed(pulls(moa, f"https://{HOST}", {variable: value}), f"{variable}: {said}")


def test_a_dead_proxy_ends_a_download_at_once(moa: Moa, served_hub: Hub) -> None:
    proxy = f"http://{LOGIN}@127.0.0.1:{nobody()}"
    ran = pulls(moa, f"https://{HOST}", {"ALL_PROXY": proxy})
    failed(ran, "ALL_PROXY: the proxy http://***@127.0.0.1:", "refuses connections")
    failed(pulls(moa, "htp:/x", {}), "HF_ENDPOINT: htp:/x is not a web address")
    failed(pulls(moa, "htp://me:p@ss@hub/x", {}), "HF_ENDPOINT: htp://***@hub/x is not a web")
    assert served_hub.sent == []


# --- what a proxy may do


def through(moa: Moa, proxy: Relay, scheme: str = "http", login: str = "") -> dict[str, str]:
    """The environment that leads to the provider through the proxy."""
    at(moa, f"http://{HOST}/v1")
    return {"ALL_PROXY": f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{proxy.port}"}


def test_a_login_is_sent_to_a_proxy_and_not_to_what_is_behind_it(
    moa: Moa, upstream: Upstream, trusted: dict[str, str]
) -> None:
    with HttpProxy(upstream.url, login="us@er:pa:ss") as proxy:
        assert asks(moa, through(moa, proxy, login=LOGIN)).code == 0
    upstream.requests.clear()
    with (
        Relay(upstream.url, tls=tls(HOST)) as secure,
        HttpProxy(f"https://127.0.0.1:{secure.port}", login="us@er:pa:ss") as proxy,
    ):
        env = through(moa, proxy, login=LOGIN)
        at(moa, f"https://{HOST}/v1")
        assert asks(moa, {**trusted, **env}).code == 0
    assert upstream.requests
    assert all("proxy-authorization" not in request.headers for request in upstream.requests)


@pytest.mark.parametrize("login", ["", "us%40er:wrong"])
@pytest.mark.parametrize("address", [f"http://{HOST}/v1", f"https://{HOST}/v1"])
def test_a_proxy_that_refuses_the_login(
    moa: Moa, upstream: Upstream, login: str, address: str
) -> None:
    with HttpProxy(upstream.url, login="us@er:pa:ss") as proxy:
        env = through(moa, proxy, login=login)
        at(moa, address)
        said = "refuses the user name" if login else "requires a user name"
        failed(asks(moa, env), "ALL_PROXY: the proxy http://", f"{said} and password (407)")
        # For the list of models, and for the answer, which is not tried again.
        assert len(proxy.asked) <= 2
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("code", "said"), [(2, "its rules do not allow it"), (5, "the host refuses connections")]
)
def test_a_socks_proxy_that_refuses(moa: Moa, upstream: Upstream, code: int, said: str) -> None:
    with SocksProxy(upstream.url, refuses=code) as proxy:
        failed(asks(moa, through(moa, proxy, "socks5h")), "ALL_PROXY: the proxy socks5h://", said)


def test_a_login_is_sent_to_a_socks_proxy(moa: Moa, upstream: Upstream) -> None:
    with SocksProxy(upstream.url, login="us@er:pa:ss") as proxy:
        assert asks(moa, through(moa, proxy, "socks5h", LOGIN)).code == 0
        failed(asks(moa, through(moa, proxy, "socks5h", "us%40er:no")), "refuses the user name")
        failed(asks(moa, through(moa, proxy, "socks5h")), "requires a user name and password")


def test_a_proxy_that_gives_no_tunnel(moa: Moa, upstream: Upstream) -> None:
    with HttpProxy(upstream.url, refuses=403) as proxy:
        env = through(moa, proxy)
        at(moa, f"https://{HOST}/v1")
        failed(asks(moa, env), f"did not connect to {HOST}:443 (403 Forbidden)")


def test_a_proxy_of_another_kind_than_is_said(moa: Moa, upstream: Upstream) -> None:
    with HttpProxy(upstream.url) as proxy:
        env = through(moa, proxy, "socks5")
        env["ALL_PROXY"] = env["ALL_PROXY"].replace("socks5", "socks5h")
        ran = asks(moa, env)
        failed(ran, "ALL_PROXY: the proxy socks5h://")
    with SocksProxy(upstream.url) as proxy:
        env = through(moa, proxy, "http")
        at(moa, f"https://{HOST}/v1")
        failed(asks(moa, env), "ALL_PROXY: the proxy http://")


def test_a_proxy_that_is_spoken_to_by_tls(
    moa: Moa, upstream: Upstream, trusted: dict[str, str]
) -> None:
    with (
        Relay(upstream.url, tls=tls(HOST)) as secure,
        HttpProxy(f"https://127.0.0.1:{secure.port}", tls=tls("127.0.0.1")) as proxy,
    ):
        at(moa, f"https://{HOST}/v1")
        ran = asks(moa, {**trusted, "ALL_PROXY": f"https://127.0.0.1:{proxy.port}"})
        assert ran.code == 0, ran.err
    assert set(proxy.asked) == {f"CONNECT {HOST}:443 HTTP/1.1"}


@pytest.mark.parametrize("entry", [HOST, "example.test", ".test", "*", f"{HOST}:80", "a, .test,"])
def test_a_host_of_no_proxy_is_not_asked_for_at_the_proxy(
    moa: Moa, upstream: Upstream, entry: str
) -> None:
    with HttpProxy(upstream.url) as proxy:
        failed(asks(moa, {**through(moa, proxy), "NO_PROXY": entry}), "unknown host")
    assert proxy.asked == []


@pytest.mark.parametrize("entry", ["ple.test", f"{HOST}:81", "10.0.0.0/8", "api.example", ""])
def test_another_host_of_no_proxy_changes_nothing(moa: Moa, upstream: Upstream, entry: str) -> None:
    with HttpProxy(upstream.url) as proxy:
        assert asks(moa, {**through(moa, proxy), "NO_PROXY": entry}).code == 0
    assert proxy.asked


# --- what a certificate may be


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (tls("127.0.0.1", expired=True), "its certificate has expired"),
        (tls("other.example"), "its certificate is for another host"),
        (
            tls("127.0.0.1", authority=trustme.CA()),
            "its certificate is signed by an authority that is",
        ),
    ],
    ids=["expired", "another host", "another authority"],
)
def test_a_bad_certificate_is_told_at_once(
    moa: Moa, upstream: Upstream, trusted: dict[str, str], context: ssl.SSLContext, said: str
) -> None:
    with served(upstream, context) as url:
        at(moa, url)
        failed(asks(moa, trusted), "no connection to 127.0.0.1:", f"TLS failed: {said}")
        at(moa, f"https://{HOST}/v1")
        with HttpProxy(url) as proxy:
            env = {**trusted, "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
            failed(asks(moa, env), "TLS failed")
            assert len(proxy.asked) <= 2


def test_what_to_set_is_told(moa: Moa, upstream: Upstream, trusted: dict[str, str]) -> None:
    with served(upstream, tls("127.0.0.1", authority=trustme.CA())) as url:
        at(moa, url)
        failed(asks(moa, trusted), f"to {trusted['SSL_CERT_FILE']}, or unset SSL_CERT_FILE")
        failed(asks(moa, {}), "not trusted", "(set SSL_CERT_FILE to a file with")


def test_an_unknown_host_is_told_at_once(moa: Moa) -> None:
    at(moa, "https://no-such-host.invalid/v1")
    ran = asks(moa, {})
    failed(ran, "no connection to no-such-host.invalid (unknown host)")
    assert not re.search("again|retry", ran.err)


# --- aiohttp is imported without the authorities that it would read for itself

OTHERS_REQUEST = """\
import asyncio, sys
from moa_cli.clients.http.late_authorities import import_aiohttp
import_aiohttp()
import aiohttp
async def status():
    async with aiohttp.ClientSession(trust_env=False) as session:
        try:
            async with session.get(sys.argv[1]) as answer:
                return answer.status
        except aiohttp.ClientConnectorCertificateError:
            return "not trusted"
print(asyncio.run(status()), asyncio.run(status()))
"""


def test_other_users_of_aiohttp_trust_what_they_did(
    upstream: Upstream, trusted: dict[str, str]
) -> None:
    def asked(env: dict[str, str]) -> str:
        command = [sys.executable, "-c", OTHERS_REQUEST, f"{url}/models"]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    with served(upstream, tls("127.0.0.1")) as url:
        assert asked(trusted).split() == ["401", "401"]
        assert asked({}) == "not trusted not trusted\n"
