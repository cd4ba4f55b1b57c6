"""Every test runs alone: in folders of its own, without settings or keys from outside, and
with no network but this machine's loopback."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.command import Moa
from tests.support.parallel import SlowTests, spread, workers
from tests.support.upstream import Upstream

# No deadline: the machine may be busy. Derandomized: what fails for one fails for all.
hypothesis.settings.register_profile("moa", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("moa")

_KEPT = ("MOA_TEST_DATA", "MOA_TEST_ENVIRONMENTS")
_FOREIGN = re.compile(
    r"MOA_.*|.*_API_KEY|.*_BASE_URL|OLLAMA_HOST|TOGETHER_.*|(HTTP|HTTPS|ALL|NO|FTP)_PROXY"
    r"|SSL_CERT_(FILE|DIR)|REQUEST_METHOD"
    r"|FORCE_COLOR|NO_COLOR|CLICOLOR.*|COLUMNS|LINES",
    re.IGNORECASE,
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many tests run at a time, if `-n` does not say so."""
    narrowing = ("keyword", "lf", "collectonly", "usepdb")
    narrowed = any(getattr(config.option, name, None) for name in narrowing)
    restricted = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if restricted else os.cpu_count() or 1
    return workers(config.args, narrowed, cores)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the slow tests over the run of several workers."""
    if hasattr(config, "workerinput"):
        items[:] = spread(items, lambda item: _patience(item, config), lambda item: item.path)


def _patience(item: pytest.Item, config: pytest.Config) -> float:
    """How long a slow test may take, in seconds; 0 for a quick one."""
    if item.get_closest_marker("slow") is None:
        return 0.0
    own = item.get_closest_marker("timeout")
    return float(own.args[0] if own else config.getini("timeout"))


def pytest_configure(config: pytest.Config) -> None:
    """Tell which tests run for long, where others run them."""
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):

        def say(text: str) -> None:
            reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
            # Gone when the run is over.
            if reporter is not None:
                # Below the row of dots, which may be unfinished.
                reporter.write_line(f"\n{text}")

        config.pluginmanager.register(SlowTests(say), "slow tests")


class NetworkRefused(Exception):
    """A test tried to reach something beyond this machine."""


@pytest.fixture(autouse=True)
def alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Empty folders in place of the user's, and an environment without settings or keys."""
    for name in list(os.environ):
        if _FOREIGN.fullmatch(name) and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for kind in ("config", "data", "state", "cache"):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(home / f"xdg-{kind}"))
        monkeypatch.setenv(f"MOA_{kind.upper()}_DIR", str(home / "moa" / kind))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    """Close the stores that the test has opened."""
    yield
    if (kept := sys.modules.get("tests.support.kept")) is not None:
        kept.close_opened()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections and name look-ups beyond this machine."""
    plain = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    look_up = socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        _check(self, address)
        plain["connect"](self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        _check(self, address)
        result: int = plain["connect_ex"](self, address)
        return result

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        if host and not _is_loopback(host):
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def _check(connection: socket.socket, address: Any) -> None:
    if connection.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise NetworkRefused(f"a test tried to connect to {address!r}")


def _is_loopback(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A model endpoint on loopback, under the test's control."""
    with Upstream() as running:
        yield running


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command on a user's machine, with the upstream as its provider `lab`."""
    return Moa(tmp_path, upstream.url)
