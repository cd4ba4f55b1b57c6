"""What is read from the store: lists, searches, and conversations as they were."""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moa_cli.core.conversation import (
    Charge,
    Conversation,
    KeptTurn,
    Proposal,
    Turn,
    Usage,
    check_usage,
)
from moa_cli.core.errors import StoreError
from moa_cli.core.values import load_value
from moa_cli.store.packing import as_unicode, unpack
from moa_cli.store.query import MatchKind, Query
from moa_cli.store.schema import store_errors
from moa_cli.store.search import Search, SearchFilter, SearchHit

_T = TypeVar("_T")
_SUMMARY = (
    "SELECT c.*, (SELECT count(*) FROM turns t WHERE t.conversation_id = c.id"
    " AND NOT withdrawn) AS turns FROM conversations c"
)
# How much of a prompt or a reply stands for it.
_BEGINNING = 300
# SQLite knows no larger number.
_MOST_ROWS = 2**63 - 1


@dataclass(frozen=True)
class ConversationSummary:
    """A conversation in a list. updated: seconds since 1970."""

    id: str
    title: str
    profile: str
    updated: float
    turns: int


@dataclass(frozen=True)
class ConversationMatch:
    """A conversation that fits what the user has typed so far.

    Attributes:
        summary: The conversation.
        snippet: As in `SearchHit`; "" if only the title or the id fits.
        prompt: The beginning of the first prompt.
        reply: The beginning of the last reply; "" if there is none.
    """

    summary: ConversationSummary
    snippet: str
    prompt: str
    reply: str


@dataclass(frozen=True)
class WithdrawnTurn:
    """A turn that was taken back or replaced, and is in the file still. id: of the turn.

    started: seconds since 1970. asked_again: whether a turn that still counts has the same prompt.
    """

    id: int
    conversation: str
    prompt: str
    started: float
    asked_again: bool


class Reader:
    """The half of a store that changes nothing.

    unreadable: how many values were left out of what was read, because they are damaged.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.unreadable = 0

    def interrupt(self) -> None:
        """End, from another thread, the query that is running; it raises StoreError."""
        self._connection.interrupt()

    def conversations(
        self,
        *,
        limit: int = 20,
        since: float = 0,
        profile: str | None = None,
        tag: str | None = None,
    ) -> list[ConversationSummary]:
        """The latest conversations first. since: seconds since 1970. limit: -1 is none."""
        with store_errors():
            rows = self._connection.execute(
                f"{_SUMMARY} WHERE updated >= ?1 AND (?2 IS NULL OR profile = ?2)"  # noqa: S608
                " AND (?3 IS NULL OR id IN (SELECT conversation_id FROM tags WHERE tag = ?3))"
                " ORDER BY updated DESC LIMIT ?4",
                (since, profile, tag, min(limit, _MOST_ROWS)),
            ).fetchall()
        return [_summary(row) for row in rows]

    def summaries(self, identities: Sequence[str]) -> list[ConversationSummary]:
        """These conversations, in this order; those that are gone are left out."""
        with store_errors():
            found = (
                self._connection.execute(f"{_SUMMARY} WHERE id = ?", (identity,)).fetchone()
                for identity in identities
            )
            return [_summary(row) for row in found if row is not None]

    def latest(self) -> str | None:
        """The id of the conversation with the latest turn; None if there is no conversation."""
        return next((summary.id for summary in self.conversations(limit=1)), None)

    def usage(self, identity: str) -> Usage:
        """What a conversation took, turns that were taken back included."""
        with store_errors():
            turns = self._connection.execute(
                "SELECT CASE WHEN json_valid(rest) THEN json_extract(rest, '$.usage') ELSE '!' END"
                " FROM turns WHERE conversation_id = ?",
                (identity,),
            ).fetchall()
            # Of a turn that runs still, its proposals tell.
            ended = self._connection.execute(
                "SELECT proposal FROM turns JOIN every_proposal ON turn_id = turns.id"
                " WHERE conversation_id = ? AND rest = '{}'",
                (identity,),
            ).fetchall()
        found = [self._sound(self._load(Usage, text)) for (text,) in turns if text]
        proposals = [self._load(Proposal, kept) for (kept,) in ended]
        found += [self._sound(proposal.usage if proposal else None) for proposal in proposals]
        return sum(found, Usage())

    def _sound(self, usage: Usage | None) -> Usage:
        """A usage as it was kept; a call of unknown price if it cannot be read or be right."""
        if usage is not None:
            try:
                check_usage(usage)
            except ValueError:
                self.unreadable += 1
            else:
                return usage
        return Usage(calls=1, unpriced_calls=1)

    def _load(self, kind: type[_T], kept: str | bytes) -> _T | None:
        """A value as it was kept; None, and counted, if it cannot be read."""
        try:
            return load_value(kind, unpack(kept))
        except (ValueError, TypeError):
            # One damaged row must not make all conversations unreadable.
            self.unreadable += 1
            return None

    def find(self, prefix: str) -> str:
        """The one conversation whose id begins with `prefix`.

        Raises StoreError if there is none, or more than one.
        """
        found = self._beginning_with(prefix, limit=2)
        if len(found) == 1 and prefix:
            return found[0]
        if found:
            raise StoreError(
                f"several conversations begin with `{prefix}`", hint="type more of its id"
            )
        raise StoreError(f"there is no conversation `{prefix}`", hint="`moa history list`")

    def load(self, identity: str) -> Conversation:
        """The conversation of that id: turns that failed included, withdrawn ones not."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT * FROM turns WHERE conversation_id = ? AND NOT withdrawn ORDER BY id",
                (identity,),
            ).fetchall()
            proposals = self._connection.execute(
                "SELECT p.* FROM turns t JOIN every_proposal p ON p.turn_id = t.id"
                " WHERE t.conversation_id = ? AND NOT t.withdrawn"
                " ORDER BY p.turn_id, p.layer, p.place",
                (identity,),
            ).fetchall()
        by_turn: dict[int, dict[int, list[Proposal]]] = {}
        for row in proposals:
            proposal = self._load(Proposal, row["proposal"])
            if proposal is not None:
                layers = by_turn.setdefault(row["turn_id"], {})
                layers.setdefault(row["layer"], []).append(proposal)
        return Conversation(tuple(self._turn(row, by_turn.get(row["id"], {})) for row in rows))

    def _turn(self, row: sqlite3.Row, layers: Mapping[int, Sequence[Proposal]]) -> Turn:
        """A turn of these proposals, by layer; what cannot be read of it is left at its default."""
        said = {"user": row["prompt"], "reply": row["reply"], "status": row["status"]}
        bare = {**said, "stored_as": row["id"], "profile": row["profile"]}
        rest: Any = {}
        try:
            rest = unpack(row["rest"])
            turn = load_value(Turn, {**bare, **rest})
        except (ValueError, TypeError):
            self.unreadable += 1
            turn = load_value(Turn, bare)
        turn = turn.with_proposals(tuple(tuple(layers[number]) for number in sorted(layers)))
        return turn if rest else _charged(turn)

    def has(self, identity: str) -> bool:
        """Whether there is a conversation of that very id."""
        with store_errors():
            row = self._connection.execute(
                "SELECT 1 FROM conversations WHERE id = ?", (identity,)
            ).fetchone()
        return row is not None

    def turn_numbers(self, identity: str) -> list[int]:
        """The numbers of a conversation's turns, in order; not of those taken back."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT id FROM turns WHERE conversation_id = ? AND NOT withdrawn ORDER BY id",
                (identity,),
            ).fetchall()
        return [int(row["id"]) for row in rows]

    def kept_turn(self, number: int) -> KeptTurn:
        """The turn of that number, with all that is kept of it. Raises StoreError."""
        with store_errors():
            row = self._connection.execute("SELECT * FROM turns WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise StoreError("the conversation was deleted while it was read")
            proposals = self._connection.execute(
                "SELECT layer, proposal FROM every_proposal WHERE turn_id = ?"
                " ORDER BY layer, place",
                (number,),
            ).fetchall()
            notes = self._connection.execute(
                "SELECT event FROM notes WHERE turn_id = ? ORDER BY rowid", (number,)
            ).fetchall()
        layers: dict[int, list[Proposal]] = {}
        for held in proposals:
            proposal = self._load(Proposal, held["proposal"])
            if proposal is not None:
                layers.setdefault(held["layer"], []).append(proposal)
        kept = []
        for note in notes:
            try:
                kept.append(unpack(note["event"]))
            except (ValueError, TypeError):
                self.unreadable += 1
        return KeptTurn(self._turn(row, layers), row["started"], row["settings"], tuple(kept))

    def tags(self, identity: str) -> tuple[str, ...]:
        """The tags of a conversation, in the order of the alphabet."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT tag FROM tags WHERE conversation_id = ? ORDER BY tag", (identity,)
            ).fetchall()
        return tuple(str(row["tag"]) for row in rows)

    def tagged(self, identities: Sequence[str] | None = None) -> bool:
        """Whether any of these conversations, or of all, has a tag."""
        with store_errors():
            rows = self._connection.execute("SELECT DISTINCT conversation_id FROM tags").fetchall()
        having = {str(row[0]) for row in rows}
        return bool(having if identities is None else having.intersection(identities))

    def title(self, identity: str) -> str:
        """The title of a conversation."""
        with store_errors():
            row = self._connection.execute(
                "SELECT title FROM conversations WHERE id = ?", (identity,)
            ).fetchone()
        return str(row["title"]) if row else ""

    def search(
        self,
        words: str,
        *,
        limit: int = 20,
        since: float = 0.0,
        profile: str | None = None,
        proposals: bool = False,
        whole: bool = False,
    ) -> list[SearchHit]:
        """Where all the words are found, the best first; not in turns that were taken back.

        words: see `query`. since: seconds since 1970. proposals: look through those too, which
        takes as long as reading them. whole: not in other forms and parts of words.
        """
        search = Search(self._connection, Query.of(as_unicode(words)), SearchFilter(since, profile))
        with store_errors():
            return search.best(limit, proposals=proposals, whole=whole)

    def matching(self, typed: str, *, limit: int = 20) -> list[ConversationMatch]:
        """Conversations for what has been typed so far; all of them for "".

        The title and a turn hold all the words, or the id begins with what was typed. The latest
        come first, but those with words that are only parts of others come last.
        """
        if not typed.strip():
            found = dict.fromkeys((row.id for row in self.conversations(limit=limit)), "")
            return self._matches(found)
        close = dict.fromkeys(self._beginning_with(typed.strip(), limit=limit), "")
        search = Search(self._connection, Query.of(as_unicode(typed), begun=True))
        with store_errors():
            close |= search.conversations(MatchKind.VARIANT, limit)
            matches = self._matches(close)[:limit]
            if len(matches) < limit:
                others = search.conversations(MatchKind.INSIDE, limit)
                matches += self._matches(
                    {key: snippet for key, snippet in others.items() if key not in close}
                )
        return matches[:limit]

    def _matches(self, found: Mapping[str, str]) -> list[ConversationMatch]:
        """The conversations of these ids, with these snippets, the latest first."""
        with store_errors():
            made = [self._match(identity, snippet) for identity, snippet in found.items()]
        matches = [match for match in made if match is not None]
        matches.sort(key=lambda match: match.summary.updated, reverse=True)
        return matches

    def _beginning_with(self, prefix: str, *, limit: int) -> list[str]:
        """Ids that begin with `prefix`."""
        start = as_unicode(prefix)
        with store_errors():
            # A range, for which there is an index, unlike for a pattern.
            rows = self._connection.execute(
                "SELECT id FROM conversations WHERE id >= ? AND id < ? || char(0x10ffff) LIMIT ?",
                (start, start, limit),
            ).fetchall()
        return [str(row["id"]) for row in rows]

    def _match(self, identity: str, snippet: str) -> ConversationMatch | None:
        row = self._connection.execute(f"{_SUMMARY} WHERE id = ?", (identity,)).fetchone()
        if row is None:
            # Deleted in the meantime, by another process.
            return None
        of_turns = "FROM turns WHERE conversation_id = ? AND NOT withdrawn"
        first = self._connection.execute(
            f"SELECT substr(prompt, 1, ?) AS text {of_turns} ORDER BY id LIMIT 1",
            (_BEGINNING, identity),
        ).fetchone()
        last = self._connection.execute(
            f"SELECT substr(reply, 1, ?) AS text {of_turns}"
            " AND reply IS NOT NULL ORDER BY id DESC LIMIT 1",
            (_BEGINNING, identity),
        ).fetchone()
        prompt, reply = (turn["text"] if turn else "" for turn in (first, last))
        return ConversationMatch(_summary(row), snippet, prompt, reply)

    def older_than(self, when: float) -> list[str]:
        """The conversations not touched since `when` (seconds since 1970)."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT id FROM conversations WHERE updated < ?", (when,)
            ).fetchall()
        return [str(row["id"]) for row in rows]

    def undone(
        self, identities: Sequence[str] | None = None, *, words: str = ""
    ) -> list[WithdrawnTurn]:
        """Turns that were taken back or replaced: of these conversations, or of all; with
        `words`, those that hold all of them, whole."""
        wanted = Query.of(as_unicode(words))
        if words and (not wanted.terms or wanted.is_signs):
            return []
        query = wanted.expression(MatchKind.WHOLE, {})
        matching = " AND t.id IN (SELECT rowid FROM search_index WHERE search_index MATCH ?)"
        hits = matching if query else ""
        sql = (
            "SELECT t.id, conversation_id, prompt, started, EXISTS (SELECT 1 FROM turns o"  # noqa: S608
            " WHERE o.conversation_id = t.conversation_id AND NOT o.withdrawn"
            " AND o.prompt = t.prompt) AS again FROM turns t"
            # Without those of deleted conversations, which are being wiped.
            " JOIN conversations c ON c.id = t.conversation_id"
            f" WHERE withdrawn{hits} ORDER BY t.id"
        )
        with store_errors():
            rows = self._connection.execute(sql, (query,) if query else ()).fetchall()
        return [
            WithdrawnTurn(*row)
            for row in rows
            if identities is None or row["conversation_id"] in identities
        ]

    def typed(self, identities: Sequence[str]) -> set[str]:
        """What the user may have typed for these conversations: the prompts of all turns, undone
        ones too, the titles, and the system prompts."""
        found: set[str] = set()
        with store_errors():
            for identity in identities:
                found.add(self.title(identity))
                for column in ("prompt", "settings"):
                    rows = self._connection.execute(
                        f"SELECT DISTINCT {column} FROM turns WHERE conversation_id = ?",  # noqa: S608
                        (identity,),
                    )
                    for (text,) in rows:
                        found.update((text,) if column == "prompt" else _system_prompts(text))
        return found


def _system_prompts(settings: str) -> Iterator[str]:
    """The system prompts in a profile's TOML."""
    if "system" not in settings:
        return
    # A profile that a foreign import brought along may be none.
    with suppress(ValueError, RecursionError):
        yield from _values_of("system", tomllib.loads(settings))


def _values_of(key: str, table: Any) -> Iterator[str]:
    if isinstance(table, list):
        for item in table:
            yield from _values_of(key, item)
    elif isinstance(table, dict):
        for name, value in table.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values_of(key, value)


def _summary(row: sqlite3.Row) -> ConversationSummary:
    return ConversationSummary(
        row["id"], row["title"], row["profile"], row["updated"], row["turns"]
    )


def _charged(turn: Turn) -> Turn:
    """A turn whose process was killed, with what its proposals took."""
    ended = [proposal for layer in turn.proposals for proposal in layer if proposal.usage.calls]
    return replace(
        turn,
        usage=sum((proposal.usage for proposal in ended), Usage()),
        ledger=tuple(
            Charge(proposal.layer, proposal.model, proposal.usage, proposal.answered_by)
            for proposal in ended
        ),
    )
