"""`moa mcp`: the mixture as a tool for agents."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from moa_cli.cli.options import TurnCaps, TypedMixture, takes_profile
from moa_cli.cli.serving import Insecure, check_installed, set_up
from moa_cli.core.errors import UsageError

if TYPE_CHECKING:
    from moa_cli.profile import Profile

_CALLS = 64
_HOST = "127.0.0.1"
_PORT = 8001


@partial(takes_profile, settles=False)
def mcp(
    profile: Profile,
    concurrency: int | None,
    *,
    http: Annotated[
        bool, Option("--http", help="Serve over HTTP, not over standard input and output.")
    ] = False,
    host: Annotated[
        str | None, Option(metavar="HOST", help=f"The address to listen on with --http ({_HOST}).")
    ] = None,
    port: Annotated[
        int | None,
        Option(
            metavar="N",
            min=0,
            max=65535,
            help=f"The port with --http ({_PORT}); 0 picks a free one.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="A file of keys that clients must send, one a line; or MOA_SERVE_API_KEY.",
        ),
    ] = None,
    insecure: Insecure = False,
    max_concurrency: Annotated[
        int, Option(metavar="N", min=1, help="Turns that run at once; others wait.")
    ] = 16,
    grace: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="How long running turns may take when an HTTP server stops.",
        ),
    ] = 5.0,
    typed: TypedMixture,
    caps: TurnCaps,
) -> None:
    """Offer mixtures to agents as tools, by the Model Context Protocol."""
    check_installed("mcp", "the MCP server", "mcp")
    if not http:
        given = {"--host": host, "--port": port, "--api-key-file": api_key_file}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} needs --http")
        if insecure:
            raise UsageError("--insecure needs --http")
    from moa_cli.observability.commands import tracing_of
    from moa_cli.server.keys import KeyPlaces
    from moa_cli.server.mcp.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host or _HOST,
        port=_PORT if port is None else port,
        key_places=KeyPlaces((), api_key_file, os.environ, unused=not http),
        insecure=insecure,
        max_concurrency=max_concurrency,
        grace=grace,
    )
    tracing, untraced = tracing_of(os.environ)
    start = set_up(
        profile, options, typed, caps, concurrency, unset=_CALLS, tracing=tracing, notes=untraced
    )
    raise Exit(run(start, http=http))
