"""`moa history export` and `moa history import`."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from moa_cli.cli.options import ForceFile, time_ago
from moa_cli.cli.output import say
from moa_cli.cli.saving import open_store, tell_unreadable
from moa_cli.cli.streams import standard_input
from moa_cli.cli.writing import destination
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.text import plural
from moa_cli.documents.export import Contents, Format, format_of, written

if TYPE_CHECKING:
    from moa_cli.store.incoming.take import ImportResult

Source = Literal["moa", "chatgpt", "claude", "llm", "aichat"]

# More hits than a search could have: an export leaves none out.
_ALL_HITS = 10**9


def export(
    conversations: Annotated[list[str] | None, Argument(metavar="ID")] = None,
    all_: Annotated[bool, Option("--all", help="All conversations.")] = False,
    search: Annotated[
        str | None,
        Option(metavar="WORDS", help="Only conversations with a turn that contains all the words."),
    ] = None,
    since: Annotated[
        str | None,
        Option(metavar="SPAN", help="Only conversations from the last SPAN, such as 7d."),
    ] = None,
    tag: Annotated[
        str | None, Option(metavar="TAG", help="Only conversations with this tag.")
    ] = None,
    profile: Annotated[
        str | None, Option(metavar="NAME", help="Only conversations with this profile.")
    ] = None,
    format_: Annotated[
        Format | None,
        Option("--format", help="The format; by default, FILE's ending decides, otherwise md."),
    ] = None,
    output: Annotated[
        str | None, Option("-o", "--output", metavar="FILE", help="Where to write it.")
    ] = None,
    proposals: Annotated[
        bool, Option("--proposals", help="Include every answer of every layer, in Markdown too.")
    ] = False,
    force: ForceFile = False,
) -> None:
    """Write conversations as Markdown, as a web page, or as JSON to import again."""
    filtered = any(given is not None for given in (search, since, tag, profile))
    if bool(conversations) + all_ + filtered != 1:
        raise UsageError(
            "select what to export in one way only",
            hint="ids, or --all, or filters such as --search",
        )
    if search is not None and not search.split():
        raise UsageError("--search needs words")
    from moa_cli.store.archive import read
    from moa_cli.store.stored_values import checked_tag

    after = time_ago(since)
    tag = tag and checked_tag(tag)
    path = None if output in (None, "-") else paths.expand(output or "")
    format_ = format_ or format_of(path)
    with closing(open_store(to_read=True)) as store:
        chosen = None if all_ else [store.find(prefix) for prefix in conversations or ()]
        if filtered:
            rows = store.conversations(limit=-1, since=after, tag=tag, profile=profile)
            chosen = [row.id for row in rows]
            if search is not None:
                said = {hit.conversation for hit in store.search(search, limit=_ALL_HITS)}
                chosen = [identity for identity in chosen if identity in said]
            if not chosen:
                raise StoreError("no conversation matches")
        if format_ != "json" and store.latest() is None:
            raise StoreError("there are no conversations")
        with (
            destination(path, force=force, error=StoreError) as file,
            closing(read(store, chosen)) as found,
        ):
            contents = Contents.stored(store, chosen)
            for piece in written(found, format_, contents, proposals=proposals):
                file.write(piece.encode())
        tell_unreadable(store)


def import_(
    files: Annotated[
        list[str], Argument(metavar="FILE", help="An export, or a folder of them; - for stdin.")
    ],
    source: Annotated[
        Source | None,
        Option("--from", help="The format of the files; by default, detected from their content."),
    ] = None,
    tags: Annotated[
        list[str] | None,
        Option("--tag", metavar="TAG", help="Tag what is imported; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print what would be imported; import nothing.")
    ] = False,
) -> None:
    """Import conversations: from `export`'s JSON, ChatGPT, Claude, llm's logs.db or aichat.

    Conversations that exist already are skipped, so you can import a file again when it has grown.
    """
    from moa_cli.store.incoming.take import take
    from moa_cli.store.stored_values import checked_tag

    with closing(open_store()) as store:
        done = take(
            store,
            files,
            standard_input(say),
            source=source,
            tags=list(dict.fromkeys(map(checked_tag, tags or []))),
            dry_run=dry_run,
            waiting=lambda: say("waiting for another import to finish"),
        )
    for took in done:
        _tell(took, would="would be " if dry_run else "")


def _tell(took: ImportResult, would: str) -> None:
    from moa_cli.store.incoming.conversation import FUTURE, NO_AMOUNT
    from moa_cli.store.incoming.recognise import SOURCES

    for old, new in took.renamed:
        say(f"{old} exists with other content: {would}imported as {new}")
    for identity, turns in took.longer:
        say(f"{identity} has more turns in the file: {would}imported {plural(turns, 'more turn')}")
    if took.same:
        more = len(took.same) - 8
        named = ", ".join(took.same[:8]) + (f" and {more} more" if more > 0 else "")
        say(f"skipped {len(took.same)} that exist already: {named}")
    text = f"{would}imported {plural(len(took.new) + len(took.renamed), 'conversation')}"
    if took.source != "moa":
        text += f", {plural(took.turns, 'turn')} from {SOURCES[took.source]}"
    changed = Counter({key: took.left.pop(key, 0) for key in (NO_AMOUNT, FUTURE)})
    for name, counts in (("left", took.left), ("changed", changed)):
        if told := [_several(number, thing) for thing, number in counts.items() if number]:
            text += f"; {name}: {', '.join(told)}"
    say(text)


def _several(number: int, thing: str) -> str:
    """A number with a noun phrase in the singular or plural: `2 branches that were edited away`."""
    noun, space, rest = thing.partition(" ")
    if noun in ("tool", "other"):
        noun, space, rest = thing, "", ""
    if number != 1:
        noun += "es" if noun.endswith("ch") else "s"
        rest = rest.replace("was ", "were ")
    return f"{number} {noun}{space}{rest}"
