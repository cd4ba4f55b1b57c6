"""`moa serve`: the mixture as an OpenAI-compatible server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Exit, Option

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
# Calls at the same time, if nothing else is set: those of many turns, not of one.
_CALLS = 256
_MODULES = ("starlette", "uvicorn", "prometheus_client")


# A server runs for long: it chooses anew when a provider's list changes.
@partial(takes_profile, settles=False)
def serve(
    profile: Profile,
    concurrency: int | None,
    *,
    host: Annotated[str, Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, Option(metavar="N", min=0, max=65535, help="The port; 0 takes any that is free.")
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
        Path | None, Option(metavar="PATH", help="A file of such keys, one a line.")
    ] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Let other machines in without a key.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        Option(
            metavar="ORIGIN",
            help="A web page's origin that may call, such as http://localhost:3000; repeatable.",
        ),
    ] = None,
    max_concurrency: Annotated[
        int, Option(metavar="N", min=1, help="Turns that run at once.")
    ] = 64,
    queue: Annotated[
        int, Option(metavar="N", min=0, help="Turns that may wait to run; beyond them: 429.")
    ] = 256,
    grace: Annotated[
        float,
        Option(metavar="SECONDS", min=0, help="What running turns get when the server stops."),
    ] = 30.0,
    show_proposals: Annotated[
        bool, Option("--show-proposals", help="Give the proposals as `reasoning_content`.")
    ] = False,
    strict: Annotated[
        bool, Option("--strict", help="Refuse fields of requests that would have no effect.")
    ] = False,
    expose_models: Annotated[
        bool, Option("--expose-models", help="Offer each model of a profile alone, by its name.")
    ] = False,
    usage: Annotated[
        Literal["reply", "sum"] | None,
        Option(
            help="The usage that clients are told: of the call that wrote the reply, or the sum of"
            " all calls. Unset: the sum for chat completions, the reply's for the other wires."
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], Option(help="The form of the log's lines.")
    ] = "text",
    max_body: Annotated[
        int, Option(metavar="BYTES", min=1, help="Most that a request body may hold.")
    ] = 10_000_000,
    caps: TurnCaps,
) -> None:
    """Serve mixtures to any program that speaks to OpenAI."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in _MODULES):
        from moa_cli.core.installation import install_command

        command = install_command("serve")
        raise MoAError("the server is not installed", hint=f"install it with: {command}")
    from moa_cli.server.run import run
    from moa_cli.server.service import ServerOptions

    options = ServerOptions(
        host=host,
        port=port,
        keys=client_keys(api_key or [], api_key_file),
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
    )

    calls = concurrency
    if calls is None and "concurrency" not in wiring.config().given:
        calls = _CALLS

    def limits(ledger: ServerLedger) -> Limits:
        # The day's budget asks the server's ledger.
        budgets = (*caps.budgets(ledger, one_turn=False), *wiring.session_budget("shared"))
        return wiring.limits(calls, budgets, ledger)

    code = run(
        profile,
        options,
        config=wiring.config(),
        spending=open_books(save=None).spending,
        limits=limits,
        introduction=wiring.introduction(wiring.settled(profile), switching=True),
    )
    raise Exit(code)


def client_keys(typed: list[str], file: Path | None) -> tuple[str, ...]:
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
