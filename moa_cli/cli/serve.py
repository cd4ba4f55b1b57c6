"""`moa serve`: the mixture as an OpenAI-compatible server."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli import wiring
from moa_cli.cli.commands import check_not_empty
from moa_cli.cli.options import TurnCaps, takes_profile
from moa_cli.cli.saving import open_books
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.text_files import lines_of, read_text
from moa_cli.profile import Profile

if TYPE_CHECKING:
    from moa_cli.engine import Limits
    from moa_cli.server.ledger import ServerLedger

_KEYS = "MOA_SERVE_API_KEY"
_MODULES = ("aiohttp", "starlette", "uvicorn", "httptools", "prometheus_client")


class LogFormat(StrEnum):
    """The form of a line of the log."""

    text = "text"
    json = "json"


Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Where to listen.")]
Port = Annotated[
    int,
    typer.Option(
        "--port", metavar="N", min=0, max=65535, help="The port; 0 takes any that is free."
    ),
]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="A key that clients must send (repeat it for several). Other users of this machine"
        f" can see it in the list of processes; better: --api-key-file, or {_KEYS}.",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="PATH", help="A file of such keys, one a line."),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Let other machines in without a key."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="A web page's origin that may call, such as http://localhost:3000; repeatable.",
    ),
]
MaxConcurrency = Annotated[
    int, typer.Option("--max-concurrency", metavar="N", min=1, help="Turns that run at once.")
]
Queue = Annotated[
    int,
    typer.Option(
        "--queue", metavar="N", min=0, help="Turns that may wait to run; beyond them: 429."
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace", metavar="SECONDS", min=0, help="What running turns get when the server stops."
    ),
]
ShowProposals = Annotated[
    bool,
    typer.Option("--show-proposals", help="Give the proposals as `reasoning_content`."),
]
Log = Annotated[LogFormat, typer.Option("--log-format", help="The form of the log's lines.")]
MaxBody = Annotated[
    int,
    typer.Option("--max-body", metavar="BYTES", min=1, help="Most that a request body may hold."),
]


@takes_profile
def serve(
    profile: Profile,
    concurrency: int | None,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKeys = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    cors_origin: Origins = None,
    max_concurrency: MaxConcurrency = 64,
    queue: Queue = 256,
    grace: Grace = 30.0,
    show_proposals: ShowProposals = False,
    log_format: Log = LogFormat.text,
    max_body: MaxBody = 10_000_000,
    caps: TurnCaps,
) -> None:
    """Serve mixtures to any program that speaks to OpenAI."""
    _check_installed()
    from moa_cli.server.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host,
        port=port,
        keys=_keys(api_key or [], api_key_file),
        insecure=insecure,
        origins=tuple(cors_origin or ()),
        max_concurrency=max_concurrency,
        queue=queue,
        grace=grace,
        show_proposals=show_proposals,
        log_format=log_format.value,
        max_body=max_body,
    )
    spending = open_books(save=None).spending
    code = run(
        profile,
        options,
        config=wiring.config(),
        spending=spending,
        limits=_limits(concurrency, caps),
        introduction=wiring.introduction(profile, switching=True),
    )
    raise typer.Exit(code)


def _limits(concurrency: int | None, caps: TurnCaps) -> Callable[[ServerLedger], Limits]:
    """Makes the engine's limits, once the ledger is there that the day's budget asks."""
    from moa_cli.engine import Budget, Cap

    session = wiring.config().budget.session

    def limits(ledger: ServerLedger) -> Limits:
        budgets = caps.budgets(ledger, one_turn=False)
        if session is not None:
            budgets += (Budget(Cap("budget.session", "usd", session), "shared"),)
        return wiring.limits(concurrency, budgets, ledger)

    return limits


def _check_installed() -> None:
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in _MODULES):
        from moa_cli.core.installation import install_command

        command = install_command("serve")
        raise MoAError("the server is not installed", hint=f"install it with: {command}")


def _keys(typed: list[str], file: Path | None) -> tuple[str, ...]:
    """All keys that clients may send. Raises UsageError if one can be none."""
    found = [("--api-key", key) for key in typed]
    around = os.environ.get(_KEYS)
    if around is not None:
        # Somebody set it, so a key was meant: without one, the server would let everybody in.
        keys = [key for key in around.split(",") if key.strip()]
        check_not_empty(_KEYS, keys or "")
        found += [(_KEYS, key) for key in keys]
    if file is not None:
        try:
            lines = lines_of(read_text(file))
        except UsageError as error:
            raise UsageError(f"--api-key-file: {error.message}", hint=error.hint) from None
        kept = [line for line in lines if line.strip() and not line.startswith("#")]
        if not kept:
            raise UsageError(f"--api-key-file: {file} holds no key")
        found += [("--api-key-file", line) for line in kept]
    for place, key in found:
        check_not_empty(place, key)
        if not (key.strip().isascii() and key.strip().isprintable()) or " " in key.strip():
            raise UsageError(f"{place}: a key must be printable ASCII without spaces")
    return tuple(dict.fromkeys(key.strip() for _, key in found))
