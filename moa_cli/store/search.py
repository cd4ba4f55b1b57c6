"""Finds turns by their words, and removes the words of deleted texts from the search index.

The table `search_index` has the terms of prompts and replies (see `store.terms`). `search_words`
has each word once, to find parts of words. Triggers update both with each turn. Titles, summaries
and proposals are not indexed: a search reads all of them.

The full-text index keeps the terms of a deleted row until its segments are merged. A row in
`search_unwiped` means that there are such terms. `search_doubted` has words that may no longer be
in any turn. `wipe_step` cleans up both, a little at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

from moa_cli.core.strategy import answer_name
from moa_cli.store.query import MatchKind, Query, TextMatch, marked
from moa_cli.store.schema import HAS_SUMMARY, Connection, immediate
from moa_cli.store.stored_values import LATEST, unpack, without_copy_mark
from moa_cli.store.terms import folded

# In practice no limit. It is needed because SQLite refuses larger numbers.
_MOST_HITS = 1_000_000_000
# At most this many words that contain a part are searched for; the shortest words come first.
_MOST_WORDS = 1000
# At most this many ways to divide the terms between a title and a turn are tried.
_MOST_SHARES = 200
# The hits that are read for each wanted conversation, because one conversation may have many.
_HITS_PER_CONVERSATION = 10
# Only this many characters of a first prompt are compared with the title.
_BEGINNING = 300
# How many doubted words are looked up for each page that a step may write.
_DOUBTED_PER_PAGE = 4
# Blocks of one kind and segment have ids that differ only in this many low bits.
_BITS_OF_KIND = 31
# This many empty rows of 14 bytes fill a few pages.
_FILLERS = 2000
# The order of the index itself, so that SQLite reads no more rows than are wanted.
_LATEST = "search_index.rowid DESC"
# The columns of a hit about its turn and conversation.
# A damaged text may have another type, and a damaged time be no time.
_PLACE = (
    "SELECT t.id, t.conversation_id,"
    f" CASE WHEN t.started BETWEEN 0 AND {LATEST} THEN t.started ELSE 0 END AS started,"
    " CAST(t.profile AS TEXT) AS profile, CAST(c.title AS TEXT) AS title"
)
_TEXTS = "CAST(t.prompt AS TEXT) AS prompt, CAST(t.reply AS TEXT) AS reply"
_JOIN = " JOIN conversations c ON c.id = t.conversation_id"
# The left table of a CROSS JOIN is the outer loop.
_TURNS = (
    f"{_PLACE}, {_TEXTS} FROM search_index CROSS JOIN turns t"
    f" ON t.id = search_index.rowid{_JOIN} WHERE search_index MATCH :expression AND NOT t.withdrawn"
)
_OF_CONVERSATIONS = " AND t.conversation_id IN (SELECT value FROM json_each(:conversations))"
# Reads all turns, to search for punctuation, which is not in the index.
_ALL_TURNS = f"{_PLACE}, {_TEXTS} FROM turns t{_JOIN} WHERE NOT t.withdrawn"
_PROPOSALS = (
    f"{_PLACE}, p.layer, p.place, p.proposal FROM turns t"
    f" CROSS JOIN every_proposal p ON p.turn_id = t.id{_JOIN} WHERE NOT t.withdrawn"
)
# Turns with a summary are found by an index of their own.
_SUMMARIES = (
    f"{_PLACE}, t.rest FROM (SELECT * FROM turns WHERE {HAS_SUMMARY} AND NOT withdrawn) t{_JOIN}"
    " WHERE true"
)
_FIRST_PROMPT = (
    f"SELECT substr(CAST(t.prompt AS TEXT), 1, :beginning) FROM turns t{_JOIN} WHERE c.id = :id"
)
# The text is the title, followed by the tags.
_TITLES = (
    "SELECT id, CAST(title AS TEXT) AS title, CAST(profile AS TEXT) AS profile,"
    f" CASE WHEN updated BETWEEN 0 AND {LATEST} THEN updated ELSE 0 END AS updated,"
    " title || coalesce((SELECT group_concat(' #' || tag, '')"
    " FROM tags WHERE conversation_id = conversations.id), '') AS text"
    " FROM conversations WHERE updated >= :since ORDER BY conversations.updated DESC"
)
# The condition on the conversation lets SQLite leave out old ones early.
_WANTED = (
    " AND t.started >= :since AND c.updated >= :since"
    " AND (:profile IS NULL OR t.profile = :profile)"
)


@dataclass(frozen=True)
class SearchHit:
    """A place where a search found all its words: a `prompt`, `reply`, `title`, `proposal` or
    `summary`, or a review of proposals, such as a `ranking`.

    turn: its place in the conversation, from 1; None for a hit in the title. snippet: words around
    the hits, with each hit between \\x02 and \\x03. when: seconds since 1970. model: the model of a
    proposal or review, else None.
    """

    conversation: str
    title: str
    turn: int | None
    where: str
    snippet: str
    when: float
    profile: str
    model: str | None = None


@dataclass(frozen=True)
class _TitleMatch:
    """A conversation whose title, or title and tags, matches some of the terms."""

    row: sqlite3.Row
    examined: TextMatch

    def met(self, kind: MatchKind) -> frozenset[int]:
        """The numbers of terms that the title matches by this kind or a better one."""
        return frozenset(
            place for place, met in enumerate(self.examined.met) if met is not None and met <= kind
        )


class Search:
    """Runs one query on one store. Its methods raise sqlite3.Error.

    since: search only turns that began then or later, in seconds since 1970. profile: only those
    of this profile; None for any.
    """

    def __init__(
        self, connection: Connection, query: Query, since: float = 0.0, profile: str | None = None
    ) -> None:
        self._connection = connection
        self._query = query
        self._only = {"since": since, "profile": profile}
        self._proposals: dict[MatchKind, list[tuple[object, SearchHit]]] | None = None

    def best(self, limit: int, *, proposals: bool = False, whole: bool = False) -> list[SearchHit]:
        """The best hits, those with the best kind of match first.

        Among hits of the same kind, titles come first, but fill at most half of the room. Turns
        that match with whole words are ranked by SQLite's measure of relevance, all others by time.
        """
        limit = min(limit, _MOST_HITS)
        found: dict[object, SearchHit] = {}
        # Punctuation has no other forms, so it matches only as a whole.
        kinds = [MatchKind.WHOLE] if whole or self._query.is_signs else list(MatchKind)
        for kind in kinds if self._query.terms else ():
            titles = self._in_titles(kind)
            hits = chain(
                islice(titles, (limit - len(found) + 1) // 2),
                (
                    (row["id"], self._hit(row, *self._in_texts(row)))
                    for row in self._turns(kind, limit + len(found))
                    if row["id"] not in found
                ),
                self._in_summaries(kind),
                self._in_proposals(kind, limit) if proposals else (),
                titles,
            )
            # The chain is lazy: a hit is searched for only if there is room for it.
            while len(found) < limit and (hit := next(hits, None)) is not None:
                found.setdefault(*hit)
        return list(found.values())

    def conversations(self, kind: MatchKind, limit: int) -> dict[str, str]:
        """The latest conversations that match by this kind or a better one, each with a snippet.

        The snippet is "" if only the title matches.
        """
        if not self._query.terms or (self._query.is_signs and kind is MatchKind.INSIDE):
            return {}
        count = len(self._query.terms)
        titled = (match.row["id"] for match in self._titled if len(match.met(kind)) == count)
        found = dict.fromkeys(islice(titled, limit), "")
        said: dict[str, str] = {}
        rows = self._said(kind, limit * _HITS_PER_CONVERSATION)
        for row in chain(rows, self._shared(kind, limit)):
            if row["conversation_id"] not in said:
                said[row["conversation_id"]] = self._in_texts(row)[1]
            if len(said) == limit:
                break
        return found | said

    def _turns(self, kind: MatchKind, count: int) -> Iterator[sqlite3.Row]:
        """The turns that match by this kind or a better one, the best first; some appear twice."""
        if kind is MatchKind.WHOLE and not self._query.is_signs:
            if self._query.literals:
                # Turns that also have the punctuation of the query come first.
                rows = self._matching(_TURNS, self._expression(kind), _LATEST, -1)
                yield from islice(filter(self._holds_literals, rows), count)
            yield from self._matching(_TURNS, self._expression(kind), "rank", count)
        else:
            yield from self._said(kind, count)
        yield from self._shared(kind, count)

    def _said(self, kind: MatchKind, count: int) -> Iterator[sqlite3.Row]:
        """The latest turns that match by this kind or a better one."""
        if self._query.is_signs:
            rows = self._connection.execute(f"{_ALL_TURNS}{_WANTED} ORDER BY t.id DESC", self._only)
            return islice(filter(self._holds_literals, rows), count)
        return self._matching(_TURNS, self._expression(kind), _LATEST, count)

    def _holds_literals(self, row: sqlite3.Row) -> bool:
        texts = [folded(row["prompt"]), folded(row["reply"] or "")]
        return all(any(literal in text for text in texts) for literal in self._query.literals)

    def _shared(self, kind: MatchKind, count: int) -> Iterator[sqlite3.Row]:
        """The latest turns that match those terms which the title of their conversation does not.

        This leaves out conversations whose titles match none of the terms, or all of them.
        """
        by_met: dict[frozenset[int], list[str]] = {}
        for titled in self._titled:
            by_met.setdefault(titled.met(kind), []).append(titled.row["id"])
        shares = [met for met in by_met if 0 < len(met) < len(self._query.terms)]
        shares.sort(key=len, reverse=True)
        for met in shares[:_MOST_SHARES]:
            yield from self._matching(
                _TURNS + _OF_CONVERSATIONS,
                self._expression(kind, met),
                _LATEST,
                count,
                conversations=json.dumps(by_met[met]),
            )

    def _matching(
        self, select: str, expression: str, order: str, count: int, **values: object
    ) -> Iterator[sqlite3.Row]:
        return self._connection.execute(
            f"{select}{_WANTED} ORDER BY {order} LIMIT :count",
            {"expression": expression, "count": count, **self._only, **values},
        )

    def _expression(self, kind: MatchKind, left_out: frozenset[int] = frozenset()) -> str:
        inside = self._inside if kind is MatchKind.INSIDE else {}
        return self._query.expression(kind, inside, left_out)

    @cached_property
    def _inside(self) -> dict[str, list[str]]:
        """For each pattern of the terms (see `Term.inside`), the words that fit it."""
        return {
            pattern: [
                row["word"]
                for row in self._connection.execute(
                    "SELECT word FROM search_words WHERE word GLOB ? ORDER BY length(word) LIMIT ?",
                    (pattern, _MOST_WORDS),
                )
            ]
            for pattern in {term.inside for term in self._query.terms if term.inside}
        }

    @cached_property
    def _titled(self) -> list[_TitleMatch]:
        """Conversations whose title matches a term, the latest first."""
        return [
            _TitleMatch(row, self._query.examine(row["text"]))
            for row in self._connection.execute(_TITLES, self._only)
            if self._query.may_match(row["text"], some=True)
        ]

    def _in_titles(self, kind: MatchKind) -> Iterator[tuple[object, SearchHit]]:
        """Titles that match all terms by exactly this kind, the latest first.

        This leaves out titles made from the first prompt, because the prompt is a hit itself.
        """
        for titled in self._titled:
            identity, title, profile, updated, text = titled.row
            right = self._only["profile"] in (None, profile)
            if right and titled.examined.kind is kind and not self._is_prompt(titled):
                snippet = marked(text, titled.examined.spans)
                yield identity, SearchHit(identity, title, None, "title", snippet, updated, profile)

    def _is_prompt(self, titled: _TitleMatch) -> bool:
        """Whether the title is the beginning of the first prompt, which is searched too."""
        title = without_copy_mark(titled.row["title"])
        if titled.examined.spans[-1].end > len(title):
            return False
        first = self._connection.execute(
            f"{_FIRST_PROMPT}{_WANTED} ORDER BY t.id LIMIT 1",
            {"beginning": _BEGINNING, "id": titled.row["id"], **self._only},
        ).fetchone()
        return first is not None and " ".join(first[0].split()).startswith(title)

    def _hit(
        self, row: sqlite3.Row, where: str, snippet: str, model: str | None = None
    ) -> SearchHit:
        # Its place among the turns of the conversation.
        [turn] = self._connection.execute(
            "SELECT count(*) FROM turns WHERE conversation_id = ? AND id <= ? AND NOT withdrawn",
            (row["conversation_id"], row["id"]),
        ).fetchone()
        place = row["conversation_id"], row["title"], turn
        return SearchHit(*place, where, snippet, row["started"], row["profile"], model)

    def _in_texts(self, row: sqlite3.Row) -> tuple[str, str]:
        """The name of the turn's text that matches the terms best, and a snippet of it."""
        texts = {where: row[where] or "" for where in ("prompt", "reply")}
        examined = {where: self._query.examine(text) for where, text in texts.items()}
        best = max(examined, key=lambda where: examined[where].merit)
        return best, marked(texts[best], examined[best].spans)

    @cached_property
    def _summaries(self) -> list[tuple[MatchKind, object, SearchHit]]:
        """Summaries that match all terms, the latest first, each with how it matches."""
        found: list[tuple[MatchKind, object, SearchHit]] = []
        for row in self._connection.execute(
            f"{_SUMMARIES}{_WANTED} ORDER BY t.id DESC", self._only
        ):
            try:
                text = str(unpack(row["rest"])["summary_so_far"])
            except (ValueError, TypeError, KeyError):
                # One damaged row must not end the search.
                continue
            examined = self._query.examine(text) if self._query.may_match(text) else None
            if examined is not None and examined.kind is not None:
                hit = self._hit(row, "summary", marked(text, examined.spans))
                found.append((examined.kind, ("summary", row["id"]), hit))
        return found

    def _in_summaries(self, kind: MatchKind) -> Iterator[tuple[object, SearchHit]]:
        """The summaries that match by exactly this kind."""
        return ((key, hit) for met, key, hit in self._summaries if met is kind)

    def _in_proposals(self, kind: MatchKind, limit: int) -> Iterator[tuple[object, SearchHit]]:
        """The latest proposals that match by this kind, at most `limit` of each kind.

        They are read one after the other until `limit` of them match by whole words.
        """
        if self._proposals is None:
            self._proposals = {kind: [] for kind in MatchKind}
            for row in self._connection.execute(
                f"{_PROPOSALS}{_WANTED} ORDER BY t.id DESC", self._only
            ):
                try:
                    proposal = unpack(row["proposal"])
                    text, model = str(proposal["text"]), str(proposal["model"])
                    where = answer_name(proposal.get("purpose", ""))
                except (ValueError, TypeError, KeyError):
                    # One damaged row must not end the search.
                    continue
                examined = self._query.examine(text) if self._query.may_match(text) else None
                if examined is None or examined.kind is None:
                    continue
                same = self._proposals[examined.kind]
                if len(same) < limit:
                    hit = self._hit(row, where, marked(text, examined.spans), model)
                    same.append(((row["id"], row["layer"], row["place"]), hit))
                if len(self._proposals[MatchKind.WHOLE]) == limit:
                    break
        yield from self._proposals[kind]


def delete_damaged(connection: Connection, turns: Sequence[int]) -> None:
    """Delete turns of which a text is not UTF-8. SQLite cannot pass such a text to the functions
    that the trigger calls, so the work of the trigger is done here."""
    (trigger,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'search_delete'"
    ).fetchone()
    connection.execute("DROP TRIGGER search_delete")
    for turn in turns:
        texts = connection.execute(
            "SELECT CAST(prompt AS TEXT), CAST(reply AS TEXT) FROM turns WHERE id = ?", (turn,)
        ).fetchone()
        connection.execute("DELETE FROM turns WHERE id = ?", (turn,))
        connection.execute(
            "INSERT INTO search_index (search_index, rowid, prompt, reply)"
            " VALUES ('delete', ?, moa_terms(?), moa_terms(?))",
            (turn, *texts),
        )
        connection.execute(
            "INSERT OR IGNORE INTO search_doubted SELECT value FROM json_each(moa_words(?, ?))",
            tuple(texts),
        )
    connection.execute("INSERT OR REPLACE INTO search_unwiped VALUES ('search_index', 0)")
    connection.execute(trigger)


def wipe_step(connection: Connection, pages: int) -> bool:
    """Do one step to remove the words of deleted texts from the index, in its own transaction.

    After the last step, no page of the index contains words that only deleted texts had, if
    `secure_delete` is on and the write-ahead log has been emptied. pages: about how many pages of
    the index to write at most. Returns whether more steps are needed. Raises sqlite3.Error.
    """
    with immediate(connection):
        doubted = connection.execute(
            "SELECT word FROM search_doubted LIMIT ?", (pages * _DOUBTED_PER_PAGE,)
        ).fetchall()
        for (word,) in doubted:
            # The word is removed unless a turn still contains it.
            held = connection.execute(
                "SELECT 1 FROM search_index WHERE search_index MATCH ? LIMIT 1", (f'"{word}"',)
            ).fetchone()
            if held is None:
                connection.execute("DELETE FROM search_words WHERE word = ?", (word,))
            connection.execute("DELETE FROM search_doubted WHERE word = ?", (word,))
        if doubted:
            return True
        unwiped = connection.execute("SELECT name, begun FROM search_unwiped").fetchone()
        if unwiped is None:
            return False
        _merge(connection, unwiped["name"], pages, begun=bool(unwiped["begun"]))
    return True


def is_wiped(connection: Connection) -> bool:
    """Whether the index has no more words of deleted texts. Raises sqlite3.Error."""
    (left,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM search_doubted) OR EXISTS (SELECT 1 FROM search_unwiped)"
    ).fetchone()
    return not left


def _merge(connection: Connection, table: str, pages: int, *, begun: bool) -> None:
    """Merge some pages of a full-text table's segments.

    In the first call, the negative number makes SQLite merge all segments that exist now. Later
    segments contain nothing that is deleted now, so the merge does not include them.
    """
    before = connection.total_changes
    connection.execute(
        f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)",
        (pages if begun else -pages,),
    )
    # The command itself counts as one change, so fewer than two mean that nothing was merged.
    if begun and connection.total_changes - before < 2:
        _overwrite(connection, table)
        connection.execute("DELETE FROM search_unwiped WHERE name = ?", (table,))
    else:
        connection.execute("UPDATE search_unwiped SET begun = 1 WHERE name = ?", (table,))


def _overwrite(connection: Connection, table: str) -> None:
    """Overwrite the unused room in pages of a full-text table that are not full.

    SQLite overwrites deleted rows. But when it moves rows between pages, it leaves copies in the
    room that becomes free. Only the last pages of a segment have unused room. It is overwritten by
    empty rows, which are inserted there and deleted again.
    """
    ends = connection.execute(
        f"SELECT max(id) FROM {table}_data GROUP BY id >> ?",
        (_BITS_OF_KIND,),
    ).fetchall()
    for (end,) in ends:
        fillers = [(end + place,) for place in range(1, _FILLERS + 1)]
        connection.executemany(f"INSERT INTO {table}_data VALUES (?, x'')", fillers)
        connection.executemany(f"DELETE FROM {table}_data WHERE id = ?", fillers)
