"""Reads from the store: lists, searches, and whole conversations.

`Reader` is the part of a store that changes nothing. A damaged row does not make a conversation
unreadable: the reader leaves the damaged value out and counts it.
"""

from __future__ import annotations

import math
import sqlite3
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moa_cli.core.conversation import (
    Charge,
    Conversation,
    KeptTurn,
    Part,
    Proposal,
    Turn,
    Usage,
    check_usage,
)
from moa_cli.core.errors import StoreError
from moa_cli.core.frozen import quickly_made
from moa_cli.core.values import load_value
from moa_cli.store.schema import HAS_SUMMARY, Connection, Queries, store_errors
from moa_cli.store.stored_values import LATEST, as_unicode, unpack, without_copy_mark

if TYPE_CHECKING:
    from moa_cli.store.search import SearchHit

_SUMMARY = (
    "SELECT c.id, title, profile, updated, (SELECT count(*) FROM turns t"
    " WHERE t.conversation_id = c.id AND NOT withdrawn) AS turns FROM conversations c"
)
# A list shows this many characters of a prompt or a reply.
_BEGINNING = 300
# The largest number that SQLite takes.
_MOST_ROWS = 2**63 - 1
# The turns of one conversation, without those that were taken back or replaced.
_ITS_TURNS = "FROM turns WHERE conversation_id = ?1 AND NOT withdrawn"
# Three values of one conversation: its first prompt, its last reply, and the status of its last
# turn.
_ENDS = (
    f"SELECT (SELECT substr(prompt, 1, {_BEGINNING}) {_ITS_TURNS} ORDER BY id LIMIT 1),"
    f" (SELECT substr(reply, 1, {_BEGINNING}) {_ITS_TURNS} AND reply IS NOT NULL"
    " ORDER BY id DESC LIMIT 1),"
    f" (SELECT status {_ITS_TURNS} ORDER BY id DESC LIMIT 1)"
)

# How a turn ended (`Turn.status`), and whether it has a reply.
TurnState = tuple[str, bool]


@quickly_made
@dataclass(frozen=True)
class ConversationSummary:
    """A conversation in a list. updated: seconds since 1970. turns: how many it has."""

    id: str
    title: str
    profile: str
    updated: float
    turns: int


@dataclass(frozen=True)
class ConversationMatch:
    """A conversation that matches the text that the user has typed so far.

    snippet: as in `SearchHit`; "" if only the title or the id matches. prompt: the beginning of its
    first prompt. reply: the beginning of its last reply; "" if there is none. status: how its last
    turn ended; "" if it has no turn.
    """

    summary: ConversationSummary
    snippet: str
    prompt: str
    reply: str
    status: str


@dataclass(frozen=True)
class WithdrawnTurn:
    """A turn that the user took back or replaced, and that is still in the file.

    conversation: its id. started: seconds since 1970. asked_again: whether another turn of the
    conversation, which was not taken back, has the same prompt.
    """

    id: int
    conversation: str
    prompt: str
    started: float
    asked_again: bool


class Reader(Queries):
    """The part of a store that changes nothing. Its methods raise StoreError."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._damaged = 0

    @property
    def unreadable(self) -> int:
        """How many damaged values were left out so far."""
        return self._damaged + self._connection.damaged

    def sound_text(self, value: object) -> str:
        """A text as it is stored; "" if it is damaged, so that it is of another type."""
        if isinstance(value, str):
            return value
        self._damaged += 1
        return ""

    def sound_time(self, value: object) -> float:
        """A time as it is stored, in seconds since 1970; 0 if it is damaged."""
        if isinstance(value, int | float) and 0 <= value <= LATEST:
            return value
        self._damaged += 1
        return 0.0

    def interrupt(self) -> None:
        """End the running query; this is called from another thread. The query raises
        StoreError."""
        self._connection.interrupt()

    def conversations(
        self,
        *,
        limit: int = 20,
        since: float = 0,
        profile: str | None = None,
        tag: str | None = None,
    ) -> list[ConversationSummary]:
        """List conversations, the latest first.

        limit: how many at most; -1 for all. since: only those that changed at this time or later,
        in seconds since 1970. profile, tag: only those of this profile, or with this tag.
        """
        rows = self._rows(
            f"{_SUMMARY} WHERE updated >= ?1 AND (?2 IS NULL OR profile = ?2)"
            " AND (?3 IS NULL OR id IN (SELECT conversation_id FROM tags WHERE tag = ?3))"
            " ORDER BY updated DESC LIMIT ?4",
            # A damaged time may be negative.
            since or -math.inf,
            profile and as_unicode(profile),
            tag,
            min(limit, _MOST_ROWS),
        )
        return list(map(self._summary, rows))

    def summaries(self, identities: Iterable[str]) -> list[ConversationSummary]:
        """List these conversations, in this order, without those that no longer exist."""
        found = (self._row(f"{_SUMMARY} WHERE id = ?", identity) for identity in identities)
        return [self._summary(row) for row in found if row is not None]

    def _summary(self, row: sqlite3.Row) -> ConversationSummary:
        return ConversationSummary(
            row["id"],
            self.sound_text(row["title"]),
            self.sound_text(row["profile"]),
            self.sound_time(row["updated"]),
            row["turns"],
        )

    def latest(self) -> str | None:
        """The id of the conversation with the latest turn; None if there is no conversation."""
        return next((summary.id for summary in self.conversations(limit=1)), None)

    def usage(self, identity: str) -> Usage:
        """The usage of a conversation, including turns that were taken back."""
        turns = self._column(
            "SELECT CASE WHEN json_valid(rest) THEN json_extract(rest, '$.usage') ELSE '!' END"
            " FROM turns WHERE conversation_id = ?",
            identity,
        )
        # A turn that still runs has no usage yet, so the usage of its proposals is counted.
        running = self._column(
            "SELECT proposal FROM turns JOIN every_proposal ON turn_id = turns.id"
            " WHERE conversation_id = ? AND rest = '{}'",
            identity,
        )
        found = [self._taken(Usage, text) for text in turns if text]
        return sum(found + [self._taken(Proposal, kept) for kept in running], Usage())

    def _taken(self, kind: type[Usage | Proposal], kept: str | bytes) -> Usage:
        """The usage of a stored value. A damaged value counts as one call of unknown price."""
        try:
            value = load_value(kind, unpack(kept))
            usage = value if isinstance(value, Usage) else value.usage
            check_usage(usage)
            return usage
        except (ValueError, TypeError):
            self._damaged += 1
            return Usage(calls=1, unpriced_calls=1)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """If the block finds a damaged value, count it and go on without it."""
        try:
            yield
        except (ValueError, TypeError):
            self._damaged += 1

    def find(self, prefix: str) -> str:
        """Find the only conversation whose id begins with `prefix`, or raise StoreError."""
        found = self._beginning_with(prefix, limit=2)
        if len(found) == 1 and prefix:
            return found[0]
        if found:
            raise StoreError(
                f"several conversations begin with `{prefix}`", hint="type more of its id"
            )
        raise StoreError(f"there is no conversation `{prefix}`", hint="`moa history list`")

    def load(self, identity: str) -> Conversation:
        """Read a conversation, with turns that failed and without those taken back."""
        rows = self._rows(f"SELECT * {_ITS_TURNS} ORDER BY id", identity)
        return Conversation(tuple(map(self._turn, rows)))

    def _turn(self, row: sqlite3.Row) -> Turn:
        """The turn of a row; damaged values are left at their defaults."""
        layers: dict[int, list[Proposal]] = {}
        reviews: list[Proposal] = []
        for layer, kept in self._rows(
            "SELECT layer, proposal FROM every_proposal WHERE turn_id = ? ORDER BY layer, place",
            row["id"],
        ):
            with self._counting():
                proposal = load_value(Proposal, unpack(kept))
                group = reviews if proposal.purpose else layers.setdefault(layer, [])
                group.append(proposal)
        parts = self._parts(row["id"])
        reply = row["reply"]
        bare = {
            "user": self.sound_text(row["prompt"]),
            "reply": None if reply is None else self.sound_text(reply),
            "status": self.sound_text(row["status"]) or "interrupted",
            "stored_as": row["id"],
            "profile": self.sound_text(row["profile"]),
            "asks_again": bool(row["asks_again"]),
        }
        rest: Any = {}
        turn = load_value(Turn, bare)
        with self._counting():
            rest = unpack(row["rest"])
            turn = load_value(Turn, {**bare, **rest})
        turn = turn.with_proposals(tuple(map(tuple, layers.values())))
        turn = replace(turn, parts=parts, reviews=tuple(reviews))
        return turn if rest else _charged(turn)

    def _parts(self, number: int) -> tuple[Part, ...]:
        """The parts of a turn's prompt. None of them is returned if one is damaged, because the
        text of the prompt is still there."""
        found = self._column("SELECT part FROM parts WHERE turn_id = ? ORDER BY place", number)
        try:
            return tuple(load_value(Part, unpack(kept)) for kept in found)
        except (ValueError, TypeError):
            self._damaged += 1
            return ()

    def has_parts(self, identities: Sequence[str] | None = None) -> bool:
        """Whether a turn of these conversations (None: of all) has parts, tool calls, or the name
        of a speaker. Turns that were taken back do not count."""
        return self._any_in(
            identities,
            "turns WHERE NOT withdrawn AND (rest LIKE '%\"tool_calls\":%'"
            " OR rest LIKE '%\"speaker\":%' OR id IN (SELECT turn_id FROM parts))",
        )

    def has_summaries(self, identities: Sequence[str] | None = None) -> bool:
        """Whether a turn of these conversations (None: of all) has a summary. Turns that were taken
        back do not count."""
        return self._any_in(identities, f"turns WHERE {HAS_SUMMARY} AND NOT withdrawn")

    def has_attempts(self, identities: Sequence[str] | None = None) -> bool:
        """Whether a turn of these conversations (None: of all) failed to replace an earlier reply.
        Turns that were taken back do not count."""
        return self._any_in(identities, "turns WHERE asks_again AND NOT withdrawn")

    def _any_in(self, identities: Sequence[str] | None, rows: str) -> bool:
        """Whether one of these conversations (None: any) has such rows."""
        having = set(self._column(f"SELECT DISTINCT conversation_id FROM {rows}"))
        return bool(having if identities is None else having.intersection(identities))

    def has(self, identity: str) -> bool:
        return self._row("SELECT 1 FROM conversations WHERE id = ?", identity) is not None

    def turn_numbers(self, identity: str) -> list[int]:
        """The numbers of a conversation's turns, in order, without those taken back."""
        return self._column(f"SELECT id {_ITS_TURNS} ORDER BY id", identity)

    def turn_states(self, identity: str) -> dict[int, TurnState]:
        """The numbers of a conversation's turns, as in `turn_numbers`, with the state of each
        turn."""
        rows = self._rows(
            f"SELECT id, status, reply IS NOT NULL AS replied {_ITS_TURNS} ORDER BY id", identity
        )
        return {row["id"]: (row["status"], bool(row["replied"])) for row in rows}

    def kept_turn(self, number: int) -> KeptTurn:
        """Read a turn with everything that is stored of it."""
        row = self._row("SELECT * FROM turns WHERE id = ?", number)
        if row is None:
            raise StoreError("the conversation was deleted while it was read")
        notes = []
        for event in self._column(
            "SELECT event FROM notes WHERE turn_id = ? ORDER BY rowid", number
        ):
            with self._counting():
                notes.append(unpack(event))
        started, settings = self.sound_time(row["started"]), self.sound_text(row["settings"])
        return KeptTurn(self._turn(row), started, settings, tuple(notes))

    def last_status(self, identity: str) -> str:
        """How a conversation's last turn ended, as `Turn.status` says; "" if it has no turn."""
        return "".join(
            self._column(f"SELECT status {_ITS_TURNS} ORDER BY id DESC LIMIT 1", identity)
        )

    def mixture(self, identity: str) -> tuple[str, str]:
        """The mixture of a conversation's latest turn: the name of its profile, and its settings as
        TOML ("" if there is no turn)."""
        row = self._row(
            "SELECT profile, settings FROM turns WHERE conversation_id = ?"
            " ORDER BY withdrawn, id DESC LIMIT 1",
            identity,
        )
        return (str(row["profile"]), str(row["settings"])) if row else ("", "")

    def tags(self, identity: str) -> tuple[str, ...]:
        query = "SELECT tag FROM tags WHERE conversation_id = ? ORDER BY tag"
        return tuple(filter(None, map(self.sound_text, self._column(query, identity))))

    def tagged(self, identities: Sequence[str] | None = None) -> bool:
        """Whether any of these conversations (None: of all) has a tag."""
        return self._any_in(identities, "tags")

    def title(self, identity: str) -> str:
        """The title of a conversation; "" if there is no such conversation."""
        row = self._row("SELECT title FROM conversations WHERE id = ?", identity)
        return self.sound_text(row["title"]) if row else ""

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
        """Find the places with all the words, the best hits first. Turns that were taken back are
        not searched.

        words: the user's query (see `store.query`). since: only turns that began at this time or
        later, in seconds since 1970. proposals: also search proposals; this is slow, because they
        have no index. whole: find only whole words, not other forms or parts of words.
        """
        from moa_cli.store.query import Query
        from moa_cli.store.search import Search

        profile = profile and as_unicode(profile)
        search = Search(self._connection, Query.of(as_unicode(words)), since, profile)
        with store_errors():
            return search.best(limit, proposals=proposals, whole=whole)

    def matching(self, typed: str, *, limit: int = 20) -> list[ConversationMatch]:
        """List the conversations that match the text typed so far; all of them for "".

        A conversation matches if its title and one of its turns together contain all the words, or
        if its id begins with the text. The latest come first. Conversations that contain the words
        only inside other words come last.
        """
        from moa_cli.store.query import MatchKind, Query
        from moa_cli.store.search import Search

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
        """The conversations of these ids with these snippets, the latest first."""
        matches = []
        for summary in self.summaries(found):
            [row] = self._rows(_ENDS, summary.id)
            texts = (self.sound_text(text or "") for text in row)
            matches.append(ConversationMatch(summary, found[summary.id], *texts))
        return sorted(matches, key=lambda match: match.summary.updated, reverse=True)

    def _beginning_with(self, prefix: str, *, limit: int) -> list[str]:
        # A range is used, because it can use the index on the id. A pattern could not.
        return self._column(
            "SELECT id FROM conversations WHERE id >= ?1 AND id < ?1 || char(0x10ffff) LIMIT ?2",
            as_unicode(prefix),
            limit,
        )

    def older_than(self, when: float) -> list[str]:
        """The ids of conversations that did not change since `when` (seconds since 1970)."""
        return self._column("SELECT id FROM conversations WHERE updated < ?", when)

    def undone(
        self, identities: Sequence[str] | None = None, *, words: str = ""
    ) -> list[WithdrawnTurn]:
        """List turns that the user took back or replaced.

        identities: only turns of these conversations; None for all. words: only turns that contain
        all these words, as whole words.
        """
        from moa_cli.store.query import MatchKind, Query

        wanted = Query.of(as_unicode(words))
        if words and (not wanted.terms or wanted.is_signs):
            return []
        query = wanted.expression(MatchKind.WHOLE, {})
        matching = " AND t.id IN (SELECT rowid FROM search_index WHERE search_index MATCH ?)"
        rows = self._rows(
            "SELECT t.id, conversation_id, prompt, started, EXISTS (SELECT 1 FROM turns o"
            " WHERE o.conversation_id = t.conversation_id AND NOT o.withdrawn"
            " AND o.prompt = t.prompt) AS again FROM turns t"
            # Leaves out turns of deleted conversations, which are being wiped.
            " JOIN conversations c ON c.id = t.conversation_id"
            f" WHERE withdrawn{matching if query else ''} ORDER BY t.id",
            *((query,) if query else ()),
        )
        return [
            WithdrawnTurn(
                row["id"],
                row["conversation_id"],
                self.sound_text(row["prompt"]),
                self.sound_time(row["started"]),
                bool(row["again"]),
            )
            for row in rows
            if identities is None or row["conversation_id"] in identities
        ]

    def typed(self, identities: Iterable[str]) -> set[str]:
        """Texts that the user may have typed for these conversations.

        These are the titles, the system and merge prompts, and the prompts of all turns, including
        turns that were taken back.
        """
        found: set[str] = set()
        for identity in identities:
            title = self.title(identity)
            # The user did not type the mark of a copy.
            found |= {title, without_copy_mark(title)}
            turns = "FROM turns WHERE conversation_id = ?"
            prompts = self._column(f"SELECT DISTINCT prompt {turns}", identity)
            found.update(map(self.sound_text, prompts))
            for settings in self._column(f"SELECT DISTINCT settings {turns}", identity):
                found.update(_profile_prompts(self.sound_text(settings)))
        return found


def _profile_prompts(settings: str) -> Iterator[str]:
    """The system prompts in a profile's TOML, and its merge prompt."""
    for key in ("system", "merge_prompt"):
        if key in settings:
            # The settings of an imported turn may not be TOML.
            with suppress(ValueError, RecursionError):
                yield from _values_of(key, tomllib.loads(settings))


def _values_of(key: str, table: Any) -> Iterator[str]:
    """All texts with that key in a table, at any depth."""
    if isinstance(table, list):
        for item in table:
            yield from _values_of(key, item)
    elif isinstance(table, dict):
        for name, value in table.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values_of(key, value)


def _charged(turn: Turn) -> Turn:
    """A turn whose process was killed, with the usage of its proposals."""
    ledger = tuple(
        Charge(proposal.layer, proposal.model, proposal.usage, proposal.answered_by)
        for layer in (*turn.proposals, turn.reviews)
        for proposal in layer
        if proposal.usage.calls
    )
    return replace(turn, usage=sum((charge.usage for charge in ledger), Usage()), ledger=ledger)
