"""`moa serve`: the mixture as an OpenAI-compatible server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from typer import Exit, Option

from moa_cli.cli.options import TurnCaps, TypedMixture, takes_profile
from moa_cli.cli.serving import Insecure, check_installed, set_up
from moa_cli.core.errors import UsageError

if TYPE_CHECKING:
    from moa_cli.observability.tracing import Tracing
    from moa_cli.profile import Profile

_KEYS = "MOA_SERVE_API_KEY"
# Calls at the same time, if nothing else is set: those of many turns, not of one.
_CALLS = 256


# A server runs for long: it chooses anew when a provider's list changes.
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
    api_key_file: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="A file of keys that clients may send, one a line: `KEY`, or `NAME: KEY`.",
        ),
    ] = None,
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
    ] = 10_000_000,
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
    check_installed("serve", "the server")
    from moa_cli.server.forwarded import trusted
    from moa_cli.server.keys import KeyPlaces
    from moa_cli.server.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host,
        port=port,
        key_places=KeyPlaces(tuple(api_key or ()), api_key_file, os.environ),
        insecure=insecure,
        origins=tuple(cors_origin or ()),
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
    tracing, untraced = _tracing(otel_endpoint)
    start = set_up(
        profile, options, typed, caps, concurrency, unset=_CALLS, tracing=tracing, notes=untraced
    )
    raise Exit(run(start))


def _tracing(endpoint: str | None) -> tuple[Tracing | None, list[str]]:
    """What traces the turns, if that is wanted; and why it does not, if it cannot.

    endpoint: what was typed. Raises MoAError if it was, and cannot be done.
    """
    from moa_cli.observability.commands import tracing_of
    from moa_cli.observability.tracing import Tracing

    if endpoint is None:
        return tracing_of(os.environ)
    _check_address("--otel-endpoint", endpoint)
    return Tracing(endpoint), []


def _check_address(option: str, address: str) -> None:
    """Raise UsageError if that is no address of HTTP."""
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if not is_one:
        raise UsageError(
            f"{option}: not an address", hint="such as http://localhost:4318/v1/traces"
        )
