"""`moa history`: conversations that were kept."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.errors import UsageError

if TYPE_CHECKING:
    from moa_cli.conversation import Turn
    from moa_cli.store import Store

__all__ = ["app"]

app = typer.Typer(
    help="List, show, search and delete past conversations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="An id, or its unique beginning.")]
_SPANS = {"h": 3600, "d": 86400, "w": 604800}


def _open() -> Store:
    from moa_cli.store import Store

    return Store.open()


def _seconds(text: str) -> float:
    """The seconds in `30d`, `12h` or `2w`. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if match is None:
        raise UsageError(f"{text!r} is no span of time", hint="for example 12h, 30d or 2w")
    return int(match.group(1)) * float(_SPANS[match.group(2)])


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many.")] = 20,
    since: Annotated[
        str | None, typer.Option("--since", metavar="SPAN", help="Not older than, such as 7d.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="Only of this profile.")
    ] = None,
    json: Json = False,
) -> None:
    """List conversations, the latest first."""
    from moa_cli.render.sanitize import one_line

    store = _open()
    after = time.time() - _seconds(since) if since else 0.0
    rows = store.conversations(limit=limit, since=after, profile=profile)
    if json:
        import dataclasses

        from moa_cli.render.jsonl import dumps

        typer.echo(dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        turns = f"{row.turns} turn{'s' if row.turns != 1 else ''}"
        title = one_line(row.title)
        typer.echo(f"{row.id}  {_when(row.updated)}  {turns:>9}  {row.profile:<16}  {title}")


@app.command("show")
def show(
    conversation: Id,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="Every answer of every layer too.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a conversation."""
    store = _open()
    found = store.find(conversation)
    turns = store.load(found).turns
    if json:
        from moa_cli.render.jsonl import dumps, turn_to_dict

        values = {"id": found, "title": store.title(found), "turns": list(map(turn_to_dict, turns))}
        typer.echo(dumps(values, indent=2))
        return
    sys.stdout.write("\n".join(_text(turn, proposals) for turn in turns))


def _text(turn: Turn, proposals: bool) -> str:
    from moa_cli.render.sanitize import one_line, sanitize

    parts = [f"› {sanitize(turn.user)}", ""]
    for layer in turn.proposals if proposals else ():
        for one in layer:
            parts += [f"── {one_line(one.proposer)} (round {one.layer})"]
            parts += [sanitize(one.error.message if one.error else one.text).strip(), ""]
    if turn.reply is not None:
        parts.append(sanitize(turn.reply).strip())
    if turn.status != "finished":
        why = f": {one_line(turn.error.message)}" if turn.error else ""
        parts.append(f"({turn.status}{why})")
    return "\n".join([*parts, ""])


@app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS")],
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many.")] = 20,
) -> None:
    """Find turns that hold all the words."""
    from moa_cli.render.sanitize import one_line, sanitize
    from moa_cli.render.terminal import can_redraw

    marks = ("\x1b[1m", "\x1b[0m") if can_redraw(sys.stdout) else ("[", "]")
    for hit in _open().search(" ".join(words), limit=limit):
        # The marks stand in the snippet as control characters, which sanitizing takes out.
        pieces = re.split("([\x02\x03])", hit.snippet.replace("\n", " "))
        shown = "".join(
            marks[piece == "\x03"] if piece in ("\x02", "\x03") else sanitize(piece)
            for piece in pieces
        )
        typer.echo(f"{hit.conversation}  {one_line(hit.title)}\n    {shown}")


@app.command("delete")
def delete(
    conversations: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="SPAN", help="All older than, such as 30d."),
    ] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete conversations for good: their words are gone from the file."""
    store = _open()
    chosen = [store.find(one) for one in conversations or []]
    if older_than:
        chosen += store.older_than(time.time() - _seconds(older_than))
    if not chosen:
        if not conversations and not older_than:
            raise UsageError("delete what?", hint="give ids, or --older-than 30d")
        typer.echo("moa: nothing to delete", err=True)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was deleted: there is nobody to ask", hint="use --yes")
        typer.confirm(f"Delete {len(chosen)} conversation(s)?", abort=True, err=True)
    store.delete(chosen)
    typer.echo(f"moa: deleted {len(chosen)}", err=True)


@app.command("path")
def path_() -> None:
    """Print the file that conversations are kept in."""
    from moa_cli.store.schema import database_file

    typer.echo(str(database_file()))
