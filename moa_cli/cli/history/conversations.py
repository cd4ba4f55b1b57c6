"""`moa history list`, `show`, `search`, `stats`, `path`, `tag` and `rename`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from moa_cli.cli import wiring
from moa_cli.cli.options import Json, NoPager, Plain, Since, look_of, time_ago, typed_or
from moa_cli.cli.output import output_width, print_json, print_lines, print_paged, say
from moa_cli.cli.saving import open_store, tell_unreadable
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural, when_text, wrapped
from moa_cli.terminal.tty import can_redraw, columns_of

if TYPE_CHECKING:
    from moa_cli.core.conversation import Turn, Usage
    from moa_cli.store.reading import ConversationSummary
    from moa_cli.store.search import SearchHit
    from moa_cli.store.spending import MonthlySpending

ConversationId = Annotated[str, Argument(metavar="ID", help="An id, or a unique prefix of it.")]
OfProfile = Annotated[
    str | None, Option("--profile", metavar="NAME", help="Only conversations with this profile.")
]

_BOLD = re.compile(r"\x1b\[[01]m")


def list_(
    limit: Annotated[int, Option("-n", "--limit", metavar="N", min=1, help="How many.")] = 20,
    since: Since = None,
    profile: OfProfile = None,
    tag: Annotated[
        str | None, Option(metavar="TAG", help="Only conversations with this tag.")
    ] = None,
    json: Json = False,
) -> None:
    """List conversations, the latest first."""
    if tag is not None:
        from moa_cli.store.stored_values import checked_tag

        tag = checked_tag(tag)
    store = open_store(to_read=True)
    rows = store.conversations(limit=limit, since=time_ago(since), profile=profile, tag=tag)
    usages = [store.usage(row.id) for row in rows]
    tags = [store.tags(row.id) for row in rows]
    if json:
        from moa_cli.core.jsonl import usage_to_dict

        print_json(
            [
                {**vars(row), "tags": list(held), "usage": usage_to_dict(usage)}
                for row, held, usage in zip(rows, tags, usages, strict=True)
            ]
        )
    elif not sys.stdout.isatty():
        print_lines(map(_listed, rows, usages, tags))
    elif rows:
        _print_table(rows, usages, tags)
    else:
        say("there are no conversations")
    tell_unreadable(store)


def _listed(row: ConversationSummary, usage: Usage, tags: Sequence[str]) -> str:
    """A conversation on one line, for other programs."""
    turns = plural(row.turns, "turn")
    profile, title = one_line(row.profile), one_line(_titled(row, tags))
    when = when_text(row.updated)
    return f"{row.id}  {when}  {turns:>9}  {profile:<16}  {_cost(usage):>8}  {title}"


def _titled(row: ConversationSummary, tags: Sequence[str]) -> str:
    """The title of a conversation, followed by its tags."""
    return " ".join([row.title, *(f"#{tag}" for tag in tags)])


def _cost(usage: Usage) -> str:
    """The cost of a conversation as a short text; `?` if it is unknown."""
    from moa_cli.core.money import cost_text

    text = cost_text(usage)
    return "?" if text == "cost unknown" else text


def _print_table(
    rows: Sequence[ConversationSummary], usages: Sequence[Usage], tags: Sequence[Sequence[str]]
) -> None:
    from moa_cli.terminal.table import Column, table_lines

    columns = [
        Column("id", [row.id for row in rows]),
        Column("last turn", [when_text(row.updated) for row in rows], spare=1),
        Column("turns", [str(row.turns) for row in rows], right=True, spare=2),
        Column("profile", [row.profile for row in rows], spare=4),
        Column("cost", list(map(_cost, usages)), right=True, spare=3),
        Column("title", list(map(_titled, rows, tags))),
    ]
    head, *lines = table_lines(columns, output_width())
    print_lines([f"\x1b[2m{head}\x1b[0m" if can_redraw(sys.stdout) else head, *lines])


def show(
    conversation: Annotated[
        str | None,
        Argument(metavar="ID", help="An id, or a unique prefix of it; by default, the latest."),
    ] = None,
    proposals: Annotated[
        bool,
        Option("--proposals", help="Also print every answer of every layer, and every review."),
    ] = False,
    plain: Plain = None,
    no_pager: NoPager = False,
    json: Json = False,
) -> None:
    """Print a conversation, at a terminal through $PAGER if it is long."""
    store = open_store(to_read=True)
    found = store.latest() if conversation is None else store.find(conversation)
    if found is None:
        raise StoreError("there are no conversations")
    turns = store.load(found).turns
    tell_unreadable(store)
    if json:
        from moa_cli.core.jsonl import turn_to_dict

        values = {
            "id": found,
            "title": store.title(found),
            "tags": list(store.tags(found)),
            "turns": list(map(turn_to_dict, turns)),
        }
        print_json(values)
        return
    settings = wiring.config()
    if settings.accessible:
        from moa_cli.terminal.transcript import spoken_text

        print_lines(spoken_text(turn, proposals=proposals) for turn in turns)
        return
    print_paged(_lines(turns, proposals, typed_or(plain, settings.plain)), no_pager=no_pager)


def _lines(turns: Sequence[Turn], proposals: bool, plain: bool) -> list[str]:
    """The lines of turns, with blank lines between turns: rendered at a terminal, else raw text."""
    from moa_cli.terminal.transcript import drawn_passages, turn_passages, turn_text

    if plain or not can_redraw(sys.stdout):
        # Not splitlines(), which knows more line ends than those that are printed.
        return "\n".join(turn_text(turn, proposals=proposals) for turn in turns).split("\n")[:-1]
    from moa_cli.terminal.board.live import color_of, console_for, reply_width

    look = look_of(wiring.config())
    console = console_for(sys.stdout, look=look)
    color, width = color_of(console), reply_width(console.width)
    lines: list[str] = []
    for turn in turns:
        lines += [""] if lines else []
        passages = turn_passages(turn, proposals=proposals)
        lines += drawn_passages(passages, width=width, color=color, look=look)
    return lines


def search(
    words: Annotated[list[str], Argument(metavar="WORDS")],
    limit: Annotated[int, Option("-n", "--limit", metavar="N", min=1, help="How many.")] = 20,
    since: Since = None,
    profile: OfProfile = None,
    proposals: Annotated[
        bool,
        Option("--proposals", help="Also search all proposals and reviews, which takes longer."),
    ] = False,
    whole: Annotated[
        bool,
        Option("-w", "--whole", help="Match whole words only, not other forms or parts of words."),
    ] = False,
    json: Json = False,
) -> None:
    """Find turns and titles that contain all the words, or other forms or parts of them.

    Whole words come first. Put a phrase in quotation marks, and protect these from the shell:
    '"blue sky" rainbow'.
    """
    store = open_store(to_read=True)
    hits = store.search(
        " ".join(words),
        limit=limit,
        since=time_ago(since),
        profile=profile,
        proposals=proposals,
        whole=whole,
    )
    if json:
        print_json([_hit_values(hit) for hit in hits])
    else:
        print_lines(map(_shown_hit, hits))
    if not hits:
        say("nothing found")
    tell_unreadable(store)


def _hit_values(hit: SearchHit) -> dict[str, object]:
    """A hit as JSON values. The snippet has no marks; `hits` are the places where matches begin and
    end in it."""
    text, spans = "", []
    for piece in re.split("([\x02\x03])", hit.snippet):
        if piece == "\x02":
            spans.append([len(text), len(text)])
        elif piece == "\x03":
            spans[-1][1] = len(text)
        else:
            text += piece
    return {**vars(hit), "snippet": text, "hits": spans}


def _shown_hit(hit: SearchHit) -> str:
    """A hit on two lines: its conversation, and the text around it. At a terminal, the title is cut
    at the terminal's width, and the text is folded."""
    marks = ("\x1b[1m", "\x1b[0m") if can_redraw(sys.stdout) else ("[", "]")
    # The marks in the snippet are control characters, which sanitizing would remove.
    pieces = re.split("([\x02\x03])", " ".join(hit.snippet.split()))
    shown = "".join(
        marks[piece == "\x03"] if piece in ("\x02", "\x03") else sanitize(piece) for piece in pieces
    )
    where = f"{hit.where} of {one_line(hit.model)}" if hit.model else hit.where
    head, words = f"{hit.conversation}  {when_text(hit.when)}  ", f"{where}: {shown}"
    columns = columns_of(sys.stdout)
    if columns is None:
        return f"{head}{one_line(hit.title)}\n    {words}"
    from moa_cli.terminal.table import cell_len, fitted

    rows = wrapped(words, columns - 4, lambda word: cell_len(_BOLD.sub("", word)))
    return "\n    ".join([head + fitted(hit.title, columns - len(head)), *rows])


def stats(json: Json = False) -> None:
    """Print turns, tokens and cost by month and model, of deleted conversations too."""
    spending = open_store(to_read=True).spending
    months, turns = spending.by_month(), spending.turns_by_month()
    zone = wiring.config().budget.zone
    if unsound := spending.unsound():
        say(f"{plural(unsound, 'row')} of the ledger with invalid values left out")
    if json:
        from moa_cli.core.jsonl import usage_to_dict
        from moa_cli.store.spending import NOT_SUMMED

        unknown = dict.fromkeys(NOT_SUMMED)
        rows = [
            {"month": row.month, "model": row.model, "turns": row.turns}
            | usage_to_dict(row.usage)
            | unknown
            for row in months
        ]
        told = {"zone": zone, "turns_by_month": turns, "models": rows}
        print_json(told)
        return
    if not months:
        say("nothing has been spent yet")
        return
    for number, (month, models) in enumerate(groupby(months, key=lambda row: row.month)):
        print_lines([*[""] * bool(number), *_month(month, turns.get(month, 0), models)])
    say(f"months are those of {zone} (budget.zone)")


def _month(month: str, turns: int, models: Iterable[MonthlySpending]) -> list[str]:
    from moa_cli.core.conversation import Usage
    from moa_cli.core.money import cost_text
    from moa_cli.terminal.table import Column, table_lines

    rows = [(spent.model, spent.turns, spent.usage) for spent in models]
    if len(rows) > 1:
        rows.append(("in all", turns, sum((usage for _, _, usage in rows), Usage())))
    usages = [usage for _, _, usage in rows]
    columns = [
        Column(month, [name for name, _, _ in rows]),
        Column("turns", [f"{turns:,}" for _, turns, _ in rows], right=True, spare=4),
        Column("calls", [f"{usage.calls:,}" for usage in usages], right=True, spare=3),
        Column("tokens in", [f"{usage.prompt_tokens:,}" for usage in usages], right=True, spare=1),
        Column("out", [f"{usage.completion_tokens:,}" for usage in usages], right=True, spare=2),
        Column("cost", list(map(cost_text, usages))),
    ]
    return table_lines(columns, output_width())


def path_() -> None:
    """Print the file that conversations are kept in."""
    typer.echo(paths.database_file())


def tag(
    conversation: ConversationId,
    tags: Annotated[
        list[str] | None,
        Argument(metavar="TAG", help="Without a tag, prints the tags of the conversation."),
    ] = None,
    remove: Annotated[bool, Option("--remove", help="Remove the tags.")] = False,
) -> None:
    """Tag a conversation, to find it by `list --tag`; print its tags."""
    from moa_cli.chat.keeping import SavedConversation
    from moa_cli.store.stored_values import checked_tag

    chosen = list(dict.fromkeys(map(checked_tag, tags or [])))
    if remove and not chosen:
        raise UsageError("--remove needs tags", hint="name them after the id")
    with closing(open_store()) as store:
        identity = store.find(conversation)
        now = SavedConversation(store, identity).tag(chosen, remove=remove)
    if chosen:
        say(f"{identity} is tagged {', '.join(now)}" if now else f"{identity} has no tags")
    else:
        print_lines(now)


def rename(
    conversation: ConversationId, title: Annotated[list[str], Argument(metavar="TITLE")]
) -> None:
    """Give a conversation another title."""
    from moa_cli.store.stored_values import checked_title

    chosen = checked_title(" ".join(title))
    with closing(open_store()) as store:
        identity = store.find(conversation)
        store.rename(identity, chosen)
    say(f"renamed {identity}: {chosen}")
