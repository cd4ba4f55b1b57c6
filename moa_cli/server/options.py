"""How a server is set up."""

from __future__ import annotations

from dataclasses import dataclass

from moa_cli.server.accesslog import LogFormat

__all__ = ["ServerOptions"]


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """keys: a client must send one of them; none asks for none. origins: web pages that may call.

    insecure: whether a server without a key may be reached from other machines.
    max_concurrency: turns at once; queue: turns that may wait. grace: seconds for running turns
    when the server stops. max_body: bytes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    insecure: bool = False
    origins: tuple[str, ...] = ()
    max_concurrency: int = 64
    queue: int = 256
    grace: float = 30.0
    show_proposals: bool = False
    log_format: LogFormat = "text"
    max_body: int = 10_000_000
