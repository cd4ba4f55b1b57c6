"""`moa history export` and `moa history import`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli import paths
from moa_cli.cli.saving import open_store, tell_unreadable, warn
from moa_cli.cli.writing import destination
from moa_cli.errors import StoreError, UsageError
from moa_cli.text_files import STANDARD_INPUT
from moa_cli.words import counted

if TYPE_CHECKING:
    from moa_cli.conversation import KeptConversation
    from moa_cli.store.archive import Imported

__all__ = ["export", "import_"]


class Format(StrEnum):
    """What an export is written in."""

    md = "md"
    json = "json"
    html = "html"


_BY_SUFFIX = {".json": Format.json, ".html": Format.html, ".htm": Format.html}


def export(
    conversations: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All conversations.")] = False,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="What to write; else as FILE is named, else md."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")
    ] = None,
    proposals: Annotated[
        bool,
        typer.Option("--proposals", help="Every answer of every layer, in Markdown too."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write conversations as Markdown, as a web page, or as JSON to import again."""
    if bool(conversations) == all_:
        raise UsageError("export what?", hint="give ids, or --all alone")
    from moa_cli.store.archive import read

    path = None if output in (None, "-") else paths.expand(output or "")
    format_ = format_ or _BY_SUFFIX.get(path.suffix.lower() if path else "", Format.md)
    store = open_store(to_read=True)
    try:
        chosen = None if all_ else [store.find(one) for one in conversations or ()]
        if format_ is not Format.json and store.latest() is None:
            raise StoreError("there are no conversations")
        with destination(path, force=force, error=StoreError) as file:
            for piece in _written(read(store, chosen), format_, proposals=proposals):
                file.write(piece.encode())
        tell_unreadable(store)
    finally:
        store.close()


def _written(
    conversations: Iterable[KeptConversation], format_: Format, *, proposals: bool
) -> Iterator[str]:
    if format_ is Format.json:
        from moa_cli.store.archive import text_of

        return text_of(conversations)
    if format_ is Format.html:
        from moa_cli.render.document_html import page

        return page(conversations)
    from moa_cli.render.document_markdown import document

    return document(conversations, proposals=proposals)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; - for stdin.")],
) -> None:
    """Take in conversations that were exported as JSON."""
    from moa_cli.store.archive import add
    from moa_cli.store.parsing import parse

    if file == "-":
        found = parse(sys.stdin.buffer.read(), STANDARD_INPUT)
    else:
        found = parse(paths.read_bytes(paths.expand(file)), file)
    store = open_store()
    try:
        _tell(add(store, found))
    finally:
        store.close()


def _tell(done: Imported) -> None:
    for old, new in done.renamed:
        warn(f"{old} is there with other content: imported as {new}")
    if done.same:
        warn(f"skipped {len(done.same)}, there already: {_some(done.same)}")
    warn(f"imported {counted(len(done.new) + len(done.renamed), 'conversation')}")


def _some(identities: Sequence[str]) -> str:
    more = len(identities) - 8
    return ", ".join(identities[:8]) + (f" and {more} more" if more > 0 else "")
