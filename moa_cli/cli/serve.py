"""`moa serve` and `moa mcp`: the mixture as a server, for programs and for agents."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from typer import Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.options import TurnCaps, TypedMixture, takes_profile
from moa_cli.cli.saving import open_books
from moa_cli.core.errors import MoAError, UsageError

if TYPE_CHECKING:
    from moa_cli.config.schema import Config
    from moa_cli.engine import Budget, Limits
    from moa_cli.observability.tracing import Tracing
    from moa_cli.profile import Profile
    from moa_cli.server.ledger import ServerLedger
    from moa_cli.server.run import Start
    from moa_cli.server.service import ServerOptions

_KEYS = "MOA_SERVE_API_KEY"
# Default limits of calls at the same time. They are higher than for a single turn.
_CALLS, _MCP_CALLS = 256, 64
_MCP_HOST, _MCP_PORT = "127.0.0.1", 8001
# The packages that both servers need.
_MODULES = ("starlette", "uvicorn", "prometheus_client")
ApiKeyFile = Annotated[
    Path | None,
    Option(
        metavar="PATH",
        help="A file of keys that clients may send, one a line: `KEY`, or `NAME: KEY`."
        f" {_KEYS} holds keys, too.",
    ),
]
Insecure = Annotated[
    bool, Option("--insecure", help="Accept requests from other machines without a key.")
]


# A server runs for long: it chooses again when a provider's list changes.
@partial(takes_profile, settles=False)
def serve(
    profile: Profile,
    concurrency: int | None,
    *,
    host: Annotated[str, Option(metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, Option(metavar="N", min=0, max=65535, help="The port; 0 picks a free one.")
    ] = 8000,
    api_key: Annotated[
        list[str] | None,
        Option(
            metavar="KEY",
            help="A key that clients must send (repeat it for several). Other users of this machine"
            f" can see it in the list of processes; better: --api-key-file, or {_KEYS}.",
        ),
    ] = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    cors_origin: Annotated[
        list[str] | None,
        Option(
            metavar="ORIGIN",
            help="An origin whose web pages may call the server, such as http://localhost:3000;"
            " repeatable.",
        ),
    ] = None,
    max_concurrency: Annotated[
        int, Option(metavar="N", min=1, help="Turns that run at once.")
    ] = 64,
    queue: Annotated[
        int,
        Option(
            metavar="N",
            min=0,
            help="Turns that may wait; the server refuses further ones with status 429.",
        ),
    ] = 256,
    grace: Annotated[
        float,
        Option(
            metavar="SECONDS", min=0, help="How long running turns may take when the server stops."
        ),
    ] = 30.0,
    show_proposals: Annotated[
        bool, Option("--show-proposals", help="Send the proposals as `reasoning_content`.")
    ] = False,
    strict: Annotated[
        bool, Option("--strict", help="Refuse requests with fields that would have no effect.")
    ] = False,
    expose_models: Annotated[
        bool,
        Option("--expose-models", help="Also offer each model of a profile alone, by its name."),
    ] = False,
    usage: Annotated[
        Literal["reply", "sum"] | None,
        Option(
            help="The usage that clients see: of the call that wrote the reply, or the sum of"
            " all calls. By default, the sum for chat completions, and the reply's for the other"
            " APIs."
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], Option(help="The format of log lines.")
    ] = "text",
    max_body: Annotated[
        int, Option(metavar="BYTES", min=1, help="Maximum size of a request body.")
    ] = 50_000_000,
    max_messages: Annotated[
        int, Option(metavar="N", min=1, help="Maximum number of messages in a request.")
    ] = 10_000,
    trusted_proxy: Annotated[
        list[str] | None,
        Option(
            metavar="ADDRESS",
            help="A proxy, or a network of proxies, whose X-Forwarded-For header is trusted;"
            " repeatable.",
        ),
    ] = None,
    otel_endpoint: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Send a trace of each turn there (OTLP over HTTP), such as"
            " http://localhost:4318/v1/traces. OTEL_EXPORTER_OTLP_ENDPOINT does the same.",
        ),
    ] = None,
    typed: TypedMixture,
    caps: TurnCaps,
) -> None:
    """Serve mixtures to any program that uses OpenAI's or Anthropic's API."""
    _prepare("serve", "the server")
    from moa_cli.server.auth import origins
    from moa_cli.server.forwarded import trusted
    from moa_cli.server.keys import KeyPlaces
    from moa_cli.server.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host,
        port=port,
        key_places=KeyPlaces(tuple(api_key or ()), api_key_file, os.environ),
        insecure=insecure,
        origins=origins("--cors-origin", cors_origin or ()),
        max_concurrency=max_concurrency,
        queue=queue,
        grace=grace,
        show_proposals=show_proposals,
        strict=strict,
        usage=usage,
        expose_models=expose_models,
        log_format=log_format,
        max_body=max_body,
        max_messages=max_messages,
        trusted_proxies=trusted("--trusted-proxy", trusted_proxy or ()),
    )
    start = _start(profile, options, typed, caps, concurrency, _CALLS, _tracing(otel_endpoint))
    raise Exit(run(start))


@partial(takes_profile, settles=False)
def mcp(
    profile: Profile,
    concurrency: int | None,
    *,
    http: Annotated[
        bool, Option("--http", help="Serve over HTTP, not over standard input and output.")
    ] = False,
    host: Annotated[
        str | None,
        Option(metavar="HOST", help=f"The address to listen on with --http ({_MCP_HOST})."),
    ] = None,
    port: Annotated[
        int | None,
        Option(
            metavar="N",
            min=0,
            max=65535,
            help=f"The port with --http ({_MCP_PORT}); 0 picks a free one.",
        ),
    ] = None,
    api_key_file: ApiKeyFile = None,
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
    _prepare("mcp", "the MCP server", "mcp")
    if not http:
        given = {"--host": host, "--port": port, "--api-key-file": api_key_file}
        for option, value in {**given, "--insecure": insecure or None}.items():
            if value is not None:
                raise UsageError(f"{option} needs --http")
    from moa_cli.server.keys import KeyPlaces
    from moa_cli.server.mcp.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host or _MCP_HOST,
        port=_MCP_PORT if port is None else port,
        key_places=KeyPlaces((), api_key_file, os.environ, unused=not http),
        insecure=insecure,
        max_concurrency=max_concurrency,
        grace=grace,
    )
    start = _start(profile, options, typed, caps, concurrency, _MCP_CALLS, _tracing(None))
    raise Exit(run(start, http=http))


def _prepare(extra: str, server: str, *modules: str) -> None:
    """Raise MoAError if an extra is not installed. server: what it contains, for the message.
    modules: the modules that it needs besides `_MODULES`."""
    # They are for other programs. With the first two, prometheus_client would write our figures
    # among theirs; with the others, the SDK of the protocol could not be imported.
    for name in (
        *("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"),
        *("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_CONTEXT"),
    ):
        os.environ.pop(name, None)
    if any(find_spec(name) is None for name in (*modules, *_MODULES)):
        from moa_cli.core.installation import install_command

        command = install_command(extra)
        raise MoAError(f"{server} is not installed", hint=f"install it with: {command}")


def _start(
    profile: Profile,
    options: ServerOptions,
    typed: TypedMixture,
    caps: TurnCaps,
    concurrency: int | None,
    unset: int,
    traced: tuple[Tracing | None, list[str]],
) -> Start:
    """The objects that a server starts with. typed, caps: the typed options, which take precedence
    over all files. concurrency: the typed number of calls at once, or None. unset: the number if
    the settings have none either. traced: see `_tracing`.
    """
    from moa_cli.clients.limiter import Limiter
    from moa_cli.config.schema import load_config
    from moa_cli.server.run import Start, most_connections

    # Shared by all versions of the settings: after a reload, running calls and past costs still
    # count.
    limiter = Limiter(unset)
    session: Budget | None = None

    def default(config: Config) -> Profile:
        wiring.use(config)
        return wiring.choose_profile(typed.profile, typed.settings, settles=False)

    def limits(config: Config, ledger: ServerLedger) -> Limits:
        nonlocal session
        wiring.use(config)
        calls = concurrency or (config.concurrency if "concurrency" in config.given else unset)
        calls = min(calls, most_connections())
        limiter.resize(calls)
        # The budget of the day reads what is spent from the ledger of the server.
        budgets = caps.budgets(ledger, one_turn=False)
        for found in wiring.session_budget("shared"):
            session = session or found
            session.cap = found.cap
            budgets += (session,)
        slots = limiter.slots(wiring.providers().provider_of)
        return replace(wiring.limits(calls, budgets, ledger), slots=slots)

    tracing, untraced = traced
    return Start(
        profile=profile,
        options=options,
        config=wiring.config(),
        read_config=load_config,
        default=default,
        limits=limits,
        calls=limiter,
        spending=open_books(save=None).spending,
        tracing=tracing,
        introduction=[*wiring.introduction(wiring.settled(profile), switching=True), *untraced],
    )


def _tracing(endpoint: str | None) -> tuple[Tracing | None, list[str]]:
    """The tracing of turns, None without it, and notices on why it is not possible. endpoint: the
    typed address, or None. Raises MoAError if it was typed, but tracing is not possible.
    """
    from moa_cli.observability.commands import tracing_of
    from moa_cli.observability.tracing import Tracing

    if endpoint is None:
        return tracing_of(os.environ)
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(
            "--otel-endpoint: not an address", hint="such as http://localhost:4318/v1/traces"
        )
    return Tracing(endpoint), []
