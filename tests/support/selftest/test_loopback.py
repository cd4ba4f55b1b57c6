"""The servers of tests close what they have accepted, whenever that was."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.faults.endpoint import Endpoint
from tests.support.loopback import LoopbackServer
from tests.support.network import Relay, tls
from tests.support.upstream import Upstream

_SERVERS: dict[str, Callable[[], LoopbackServer]] = {
    "upstream": Upstream,
    "endpoint": lambda: Endpoint(lambda _model, _before: ()),
    "relay": lambda: Relay("http://127.0.0.1:1"),
    "relay of TLS": lambda: Relay("https://127.0.0.1:1", tls=tls("127.0.0.1")),
}


@pytest.mark.parametrize("name", _SERVERS)
def test_a_connection_that_comes_as_a_server_stops_is_closed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[socket.socket] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        gc.collect()
        warned.clear()
        with _SERVERS[name]() as server:
            stop = server._stop.set

            def come_and_stop() -> None:
                # On its thread, which accepts in its next step, and is told to stop before that.
                clients.append(socket.create_connection(("127.0.0.1", server.port)))
                server._loop.call_soon(stop)

            monkeypatch.setattr(server._stop, "set", come_and_stop)
        gc.collect()
    for client in clients:
        client.settimeout(60)
        with client, suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert [str(warning.message) for warning in warned] == []
    assert clients
