"""While the user types, the chat connects to the endpoints of the profile, and asks nothing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chat.test_at_a_terminal import at_prompt
from tests.support.command import Moa, Terminal
from tests.support.network import HttpProxy, nobody
from tests.support.upstream import Reply, Upstream

# A host that only a proxy leads to: what is on this machine needs no warming.
ADDRESS = "http://api.example.test/v1"


def behind(proxy: HttpProxy) -> dict[str, str]:
    return {"ALL_PROXY": f"http://127.0.0.1:{proxy.port}"}


def test_a_connection_is_opened_before_anything_is_asked(moa: Moa, upstream: Upstream) -> None:
    moa.configure(providers={"lab": {"base_url": ADDRESS, "api_key_env": "LAB_KEY"}})
    with (
        HttpProxy(upstream.url) as proxy,
        moa.terminal("chat", columns=100, rows=30, env=behind(proxy)) as terminal,
    ):
        at_prompt(terminal)
        upstream.wait_for(lambda: bool(upstream.requests))
        (request,) = upstream.requests
        assert request.method == "OPTIONS"
        assert "authorization" not in request.headers
        terminal.send("/exit\r")
        assert terminal.wait() == 0


def test_an_endpoint_that_is_not_there_is_passed_over_until_it_is_asked(moa: Moa) -> None:
    port = nobody()
    provider = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": provider})
    with moa.terminal("chat", columns=100, rows=30) as terminal:
        at_prompt(terminal)
        terminal.send("/exit\r")
        assert terminal.wait() == 0
        assert "refused" not in "\n".join(terminal.lines())


def test_a_key_is_not_asked_for_before_it_is_needed(moa: Moa, upstream: Upstream) -> None:
    asked = moa.folder / "asked"
    command = f"touch {asked}; echo key"
    moa.configure(providers={"lab": {"base_url": ADDRESS, "api_key_cmd": command}})
    with (
        HttpProxy(upstream.url) as proxy,
        moa.terminal("chat", columns=100, rows=30, env=behind(proxy)) as terminal,
    ):
        at_prompt(terminal)
        upstream.wait_for(lambda: bool(upstream.requests))
        terminal.send("/exit\r")
        assert terminal.wait() == 0
    assert not asked.exists()


def test_a_first_turn_finds_everything_loaded(moa: Moa, upstream: Upstream) -> None:
    """Also where an endpoint on this machine needs no connection opened."""
    upstream.always("*", Reply(text="Good day."))
    # Python tells on standard error what it imports.
    importing = {"PYTHONPROFILEIMPORTTIME": "1"}
    with moa.terminal("chat", columns=100, rows=30, env=importing, fresh=True) as terminal:
        # What is imported is told in the middle of the screen.
        terminal.wait_for(lambda: "›" in terminal.raw.decode(errors="replace"))
        terminal.wait_for(
            lambda: imported(terminal.raw) >= {"aiohttp", "moa_cli.terminal.board.live"}
        )
        terminal.wait_for(lambda: has_come_to_rest(terminal))
        before = imported(terminal.raw)
        terminal.send("hi\r")
        terminal.wait_for(lambda: b"Good day." in terminal.raw)
        terminal.settle(1.0)
        assert imported(terminal.raw) == before


def has_come_to_rest(terminal: Terminal) -> bool:
    """Whether the program writes nothing for a while and then waits, in all of its threads: on a
    busy machine it may be silent because it does not run."""
    terminal.settle(3.0)
    tasks = Path(f"/proc/{terminal.process.pid}/task").glob("*/stat")
    return {task.read_text().rpartition(")")[2].split()[0] for task in tasks} <= {"S"}


def imported(shown: bytearray) -> set[str]:
    text = shown.decode(errors="replace")
    return set(re.findall(r"import time: +\d+ \| +\d+ \| +([\w.]+)\r", text))
