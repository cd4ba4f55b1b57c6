"""`moa models`: what providers offer, and the embedded model's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.core.errors import ClientError, UsageError

if TYPE_CHECKING:
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.core.money import Price

__all__ = ["models"]


def models(
    provider: Annotated[
        str | None,
        typer.Argument(metavar="[PROVIDER]", help="A provider's name, or `pull`."),
    ] = None,
    weights: Annotated[
        str | None, typer.Argument(metavar="[WEIGHTS]", help="After `pull`: smollm2.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List what a provider offers.

    Without a name: each provider that there is a key for, and the embedded model.
    `moa models pull smollm2` fetches the embedded model's weights.
    """
    if provider == "pull":
        _pull(weights)
        return
    if weights is not None:
        raise UsageError("`moa models` takes one provider at a time")
    import asyncio

    rows = asyncio.run(_list(provider))
    if json:
        from moa_cli.core.text import dumps

        typer.echo(dumps(rows, indent=2))
        return
    _print(rows)


def _pull(name: str | None) -> None:
    from moa_cli.clients.local.weights import SMOLLM2, pull

    if name != SMOLLM2:
        raise UsageError(
            f"there are no weights named {name!r} to pull" if name else "pull what?",
            hint=f"moa models pull {SMOLLM2}",
        )
    typer.echo(str(pull(lambda text: typer.echo(f"moa: {text}", err=True))))


async def _list(name: str | None) -> list[dict[str, Any]]:
    from moa_cli.cli import wiring
    from moa_cli.clients.local.weights import SMOLLM2
    from moa_cli.core.sanitize import one_line
    from moa_cli.core.text import nearest
    from moa_cli.models.providers import DEFAULT_PROVIDER

    pool = wiring.client_pool()
    known = pool.providers.known
    if name is not None and name not in known:
        near = nearest(name, known)
        hint = f"did you mean `{near}`?" if near else f"known providers: {', '.join(known)}"
        raise UsageError(f"there is no provider `{name}`", hint=hint)
    chosen = [name] if name else [one for one in known if pool.providers.key_source(known[one])]
    for notice in pool.providers.key_notices(f"{one}:-" for one in chosen):
        typer.echo(f"moa: {one_line(notice)}", err=True)
    rows: list[dict[str, Any]] = []
    try:
        for one in chosen if name else [*chosen, "local"]:
            client = pool.endpoint(f"{one}:{SMOLLM2 if one == 'local' else '-'}").client
            try:
                found = await client.models()
            except ClientError as error:
                if name:
                    raise
                typer.echo(f"moa: {one}: {error.message}", err=True)
                continue
            prefix = "" if one == DEFAULT_PROVIDER else f"{one}:"
            rows += [_row(one, prefix, info, pool.own_price(f"{one}:{info.id}")) for info in found]
    finally:
        await pool.aclose()
    return rows


def _row(provider: str, prefix: str, info: ModelInfo, own: Price | None) -> dict[str, Any]:
    price = own or info.price
    return {
        "name": f"{prefix}{info.id}",
        "provider": provider,
        "context_length": info.context_length,
        "prompt_usd_per_million": price.prompt if price else None,
        "completion_usd_per_million": price.completion if price else None,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from moa_cli.core.sanitize import one_line

    if not rows:
        typer.echo("moa: no models", err=True)
        return
    names = [one_line(row["name"]) for row in rows]
    width = max(map(len, names))
    typer.echo(f"{'model':<{width}}  {'context':>8}  {'$/M in':>8}  {'$/M out':>8}")
    for name, row in zip(names, rows, strict=True):
        context = "?" if row["context_length"] is None else f"{row['context_length']}"
        prices = [
            "?" if row[key] is None else f"{row[key]:.2f}"
            for key in ("prompt_usd_per_million", "completion_usd_per_million")
        ]
        typer.echo(f"{name:<{width}}  {context:>8}  {prices[0]:>8}  {prices[1]:>8}")
