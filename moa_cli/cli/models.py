"""`moa models`: lists what providers offer, and fetches weights for models that run inside moa."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument

from moa_cli.cli import wiring
from moa_cli.cli.commands import Commands, Debug, Group
from moa_cli.cli.options import JsonArray
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.core.errors import ClientError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import meant, with_hint

if TYPE_CHECKING:
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.models.providers import Providers


class _ListByDefault(Group):
    """A group whose default command is `list`: `moa models openai` is `moa models list openai`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        # While the first word is being completed, it may still become either.
        if not named and (args or not ctx.resilient_parsing):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """See `Group`. It completes the names of commands and of providers."""
        provider = self.commands["list"].params[0]
        return [*super().shell_complete(ctx, incomplete), *provider.shell_complete(ctx, incomplete)]


group = Commands(
    help="List what a provider offers.\n\n"
    "`moa models` and `moa models PROVIDER` stand for `moa models list`.",
    cls=_ListByDefault,
    no_args_is_help=False,
    subcommand_metavar="[PROVIDER] | COMMAND [ARGS]...",
)


def _weights_names() -> list[str]:
    """The names of weights, for the shell's completion."""
    from moa_cli.clients.local.weights import SMOLLM2

    return [SMOLLM2]


@group.command("list")
def list_(
    provider: Annotated[
        str | None,
        Argument(
            metavar="PROVIDER",
            help="A provider's name.",
            autocompletion=lambda: list(wiring.providers().known),
        ),
    ] = None,
    json: JsonArray = False,
    debug: Debug = False,
) -> None:
    """List what a provider offers.

    Without a name, all providers with a key, the model servers that run on this machine, and the
    embedded model are listed. `~` marks a price from the table that comes with moa, because the
    provider lists none.
    """
    import asyncio

    rows = asyncio.run(_rows(provider))
    if json:
        print_json(rows)
    elif rows:
        print_lines(_lines(rows, output_width()))
    else:
        say("no models")


@group.command("suggest")
def suggest(json: JsonArray = False) -> None:
    """Suggest small models that run on this machine together."""
    from moa_cli.clients.local.memory import LocalMemory, size_in_words
    from moa_cli.clients.local.suggestions import suggest

    limit = LocalMemory(wiring.config().local).limit()
    models = suggest(limit)
    if json:
        print_json([asdict(model) for model in models])
        return
    memory = "unknown" if limit is None else size_in_words(limit)
    say(
        f"for {memory} of memory (three quarters of the machine's, or `local.memory`);"
        " fetch one with `moa models pull NAME`:"
    )
    width = max(len(model.name) for model in models)
    heads = [f"{m.name:<{width}}  {m.gigabytes:>5.2f} GB  {m.licence:<10}" for m in models]
    columns = output_width()
    # A name that users copy must not be split over two lines.
    fit = all(
        len(f"{head}  {m.reference}") <= columns for head, m in zip(heads, models, strict=True)
    )
    for head, model in zip(heads, models, strict=True):
        print_lines(
            [f"{head}  {model.reference}"] if fit else [head.rstrip(), f"    {model.reference}"]
        )


@group.command("pull")
def pull(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME",
            help="smollm2, or a GGUF model of the Hugging Face hub: hf:OWNER/REPO, with :QUANT or"
            " /FILE to name one of its files.",
            autocompletion=_weights_names,
        ),
    ] = None,
) -> None:
    """Fetch the weights of a model that runs inside moa.

    The same command resumes an interrupted download.
    """
    from moa_cli.clients.local import hub, weights

    if name is not None and name.startswith(hub.PREFIX):
        path = hub.pull(name, say)
        names = {file: model for model, file in weights.pulled_models().items()}
        say(f"Use it as local:{names[path]}")
        typer.echo(path)
    elif name == weights.SMOLLM2:
        typer.echo(weights.pull(say))
    elif name:
        raise UsageError(
            f"there are no weights named {name!r} to pull",
            hint=f"write {weights.SMOLLM2}, or hf:OWNER/REPO for a model of the Hugging Face hub;"
            " `moa models suggest` names some",
        )
    else:
        raise UsageError("name the weights to pull", hint=f"moa models pull {weights.SMOLLM2}")


async def _rows(name: str | None) -> list[dict[str, Any]]:
    from moa_cli.clients.local.weights import local_models
    from moa_cli.models.table import name_at

    pool = wiring.client_pool(sdk_lists=True)
    known = pool.providers.known
    if name is not None and name not in known:
        hint = meant(name, known, f"known providers: {', '.join(known)}")
        raise UsageError(f"there is no provider `{name}`", hint=hint)
    chosen = [name] if name else _usable(pool.providers)
    for notice in pool.providers.key_notices(f"{provider}:-" for provider in chosen):
        say(notice)
    rows: list[dict[str, Any]] = []
    async with aclosing(pool):
        for provider in chosen:
            try:
                if provider == "local":
                    found = local_models(wiring.config())
                else:
                    found = await pool.endpoint(f"{provider}:-").client.models()
            except ClientError as error:
                if name:
                    raise
                say(with_hint(error.message, error.hint))
                continue
            for info in found:
                told = pool.catalog.completed(known[provider], info)
                rows.append(_row(provider, name_at(provider, info.id), told))
    return rows


def _usable(providers: Providers) -> list[str]:
    """The providers with a key, those of the servers that run on this machine, and `local`."""
    from moa_cli.clients.local_servers import find_local_servers

    running = {server.provider for server in find_local_servers(providers)}
    keyed = {name for name, provider in providers.known.items() if providers.key_source(provider)}
    return [*(name for name in providers.known if name in keyed | running), "local"]


def _row(provider: str, name: str, info: ModelInfo) -> dict[str, Any]:
    price = info.price
    row: dict[str, Any] = {
        "name": name,
        "provider": provider,
        "context_length": info.context_length,
        "prompt_usd_per_million": price.prompt if price else None,
        "completion_usd_per_million": price.completion if price else None,
    }
    # These fields apply to few models, so they are left out for the others.
    if info.kind != "chat":
        row["kind"] = info.kind
    if price and price.cached is not None:
        row["cached_usd_per_million"] = price.cached
    if price and price.request:
        row["request_usd"] = price.request
    if price and price.tiers:
        row["tiers"] = [asdict(tier) for tier in price.tiers]
    if info.from_table:
        row["price_from_table"] = True
    if info.sees is not None:
        row["sees_images"] = info.sees
    return row


def _lines(rows: list[dict[str, Any]], columns: int) -> list[str]:
    """A table of models. If it is wider than `columns`, the figures of each model are below its
    name."""
    from moa_cli.core.money import price_cell

    names = [one_line(row["name"]) for row in rows]
    width = max(map(len, names))
    with_kinds = any("kind" in row for row in rows)
    head = f"{'model':<{width}}  {'context':>8}  {'$/M in':>8}  {'$/M out':>8}"
    table, narrow = [f"{head}  kind" if with_kinds else head], []
    for name, row in zip(names, rows, strict=True):
        context = "?" if row["context_length"] is None else f"{row['context_length']}"
        prices = [
            price_cell(row[key], from_table="price_from_table" in row)
            for key in ("prompt_usd_per_million", "completion_usd_per_million")
        ]
        line = f"{name:<{width}}  {context:>8}  {prices[0]:>8}  {prices[1]:>8}"
        figures = f"    context {context}, $/M {prices[0]} in, {prices[1]} out"
        if with_kinds:
            kind = row.get("kind", "chat")
            line, figures = f"{line}  {kind}", f"{figures}, {kind}"
        table.append(line)
        narrow += [name, figures]
    return table if max(map(len, table)) <= columns else narrow
