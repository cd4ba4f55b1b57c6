"""Reads the log of `llm`, an SQLite file with `responses` or, from newer releases, `turns`.

A response belongs to a conversation, and its prompt may be made of fragments. A turn names the last
message that was sent and the last one that came back. Messages form chains, which conversations can
share. A newer release leaves the rows of older releases in the older tables.

Neither the file nor any file beside it is changed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Usage
from moa_cli.store.incoming.conversation import IncomingConversation, TurnBuilder

# The most bytes of one value.
_LONGEST = 64 << 20
# The most messages of a chain. A longer chain counts as a loop.
_LONGEST_CHAIN = 10_000


def conversations(path: Path) -> Iterator[IncomingConversation]:
    """The conversations in the file, in the order in which they began. Raises ValueError."""
    try:
        with _opened(path) as connection:
            yield from _Log(connection).conversations()
    except sqlite3.Error as error:
        raise ValueError(f"cannot be read as an SQLite file: {error}") from None


def is_log(path: Path) -> bool:
    """Whether an SQLite file is a log of llm that can be read."""
    try:
        with _opened(path) as connection:
            _Log(connection)
    except (ValueError, sqlite3.Error):
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory() as folder:
        side = path.with_name(f"{path.name}-wal")
        if side.exists() and side.stat().st_size:
            # To read a database with a write-ahead log, SQLite has to write a file beside it. So a
            # copy is read.
            copy = Path(folder, "copy.db")
            shutil.copyfile(path, copy)
            shutil.copyfile(side, copy.with_name(f"{copy.name}-wal"))
            uri = copy.as_uri()
        else:
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            connection.row_factory = sqlite3.Row
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            connection.execute("PRAGMA query_only = ON")
            # The schema of the file may call functions. With this setting, these can do no harm.
            connection.execute("PRAGMA trusted_schema = OFF")
            yield connection
        finally:
            connection.close()


class _Log:
    """The tables that this log has."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._columns: dict[str, set[str]] = {}
        for table, column in connection.execute(
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
            " WHERE t.type = 'table' AND t.sql NOT LIKE 'CREATE VIRTUAL%'"
        ):
            self._columns.setdefault(table, set()).add(column)
        self._old = {"id", "prompt", "response", "conversation_id"} <= self._of("responses")
        self._new = (
            {"id", "thread_id", "parent_message_hash", "tip_message_hash"} <= self._of("turns")
            and {"hash", "parent_hash", "role"} <= self._of("messages")
            and {"message_hash", "position", "type", "text", "payload"} <= self._of("parts")
        )
        if {"conversation_id", "settings", "withdrawn"} <= self._of("turns"):
            raise ValueError("is a history of moa; `moa history recover FILE` adds it to yours")
        if not self._old and not self._new:
            raise ValueError("is an SQLite file, but not a log of llm")

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def _of(self, table: str) -> set[str]:
        return self._columns.get(table, set())

    def conversations(self) -> Iterator[IncomingConversation]:
        selects = []
        if self._old:
            selects.append(self._places(1, "responses", "conversation_id"))
        if self._new:
            selects.append(self._places(2, "turns", "thread_id"))
        # The query sorts only row numbers, not texts. A row without a conversation is a
        # conversation by itself.
        rows = self._connection.execute(
            "SELECT generation, place, conversation,"
            " min(at) OVER (PARTITION BY conversation) AS begun"
            f" FROM ({' UNION ALL '.join(selects)})"
            " ORDER BY begun, conversation, at, generation, place"
        )
        for identity, together in groupby(rows, key=lambda row: str(row["conversation"])):
            builder = TurnBuilder("llm")
            for row in together:
                if row["generation"] == 1:
                    self._add_response(builder, self._row("responses", row["place"]))
                else:
                    self._add_turn(builder, self._row("turns", row["place"]))
            yield builder.conversation(identity, self._name(identity))

    def _places(self, generation: int, table: str, conversation: str) -> str:
        at = "datetime_utc" if "datetime_utc" in self._of(table) else "''"
        legacy = ""
        if generation == 1 and self._new:
            # A response may also be in the newer tables, with the same id. It is read only there.
            legacy = " WHERE id NOT IN (SELECT id FROM turns)"
        return (
            f"SELECT {generation} AS generation, rowid AS place,"
            f" coalesce({conversation}, 'alone ' || id) AS conversation,"
            f" coalesce({at}, '') AS at FROM {table}{legacy}"
        )

    def _row(self, table: str, place: int) -> dict[str, Any]:
        return dict(self._rows(f"SELECT * FROM {table} WHERE rowid = ?", place)[0])

    def _name(self, identity: str) -> str:
        for table in ("threads", "conversations"):
            if {"id", "name"} <= self._of(table):
                for (name,) in self._rows(f"SELECT name FROM {table} WHERE id = ?", identity):
                    if isinstance(name, str):
                        return name
        return ""

    def _add_response(self, builder: TurnBuilder, row: dict[str, Any]) -> None:
        identity = row["id"]
        system = [*self._fragments("system_fragments", identity), _text(row.get("system"))]
        builder.system("\n\n".join(filter(None, system)))
        prompt = [*self._fragments("prompt_fragments", identity), _text(row.get("prompt"))]
        attached = self._attachments(identity)
        builder.left.update(attached)
        results = self._count("tool_results", identity)
        builder.left["tool result"] += results
        builder.left["tool call"] += self._count("tool_calls", identity)
        at = row.get("datetime_utc")
        # An answer after a tool result belongs to the earlier prompt.
        if not results or any(text.strip() for text in prompt):
            builder.user("\n".join(filter(None, prompt)), at, more=bool(attached) or not results)
        builder.assistant(
            _text(row.get("response")), reasoning=_text(row.get("reasoning")), **_told(row)
        )

    def _add_turn(self, builder: TurnBuilder, row: dict[str, Any]) -> None:
        sent = row["parent_message_hash"]
        asked = self._chain(sent, until="assistant")
        system = [text for _, role, text in asked if role == "system"]
        if system:
            builder.system("\n\n".join(system))
        at = row.get("datetime_utc")
        prompt, attached, results = [], 0, 0
        for identity, role, text in asked:
            if role != "system":
                prompt += [text] if text.strip() else []
                kinds = self._kinds(identity)
                attached += kinds["attachment"]
                results += kinds["tool_result"]
        builder.left["file"] += attached
        builder.left["tool result"] += results
        if prompt or not results:
            builder.user("\n\n".join(prompt), at, more=bool(attached) or not results)
        for number, (identity, role, text) in enumerate(self._chain(row["tip_message_hash"], sent)):
            kinds = self._kinds(identity)
            builder.left["tool call"] += kinds["tool_call"]
            builder.left["tool result"] += kinds["tool_result"]
            if role == "assistant":
                thought = self._said(identity, "reasoning")
                told = _told(row) if number == 0 else {}
                builder.assistant(text, reasoning=thought, **told)

    def _chain(
        self, tip: str | None, end: str | None = None, until: str | None = None
    ) -> list[tuple[str, str, str]]:
        """The messages that lead to `tip`, each as (hash, role, text).

        end: the hash of the last message before them. until: a role; they begin after the last
        message with this role.
        """
        found: list[tuple[str, str, str]] = []
        while tip is not None and tip != end:
            rows = self._rows("SELECT parent_hash, role FROM messages WHERE hash = ?", tip)
            if not rows or rows[0]["role"] == until:
                break
            if len(found) == _LONGEST_CHAIN:
                raise ValueError("its messages form a loop")
            found.append((tip, str(rows[0]["role"]), self._said(tip, "text")))
            tip = rows[0]["parent_hash"]
        return found[::-1]

    def _said(self, message: str, kind: str) -> str:
        rows = self._rows(
            "SELECT text, payload FROM parts WHERE message_hash = ? AND type = ? ORDER BY position",
            message,
            kind,
        )
        texts = (_text(row["text"]) or self._referred(row) for row in rows)
        return "\n\n".join(text for text in texts if text)

    def _referred(self, row: sqlite3.Row) -> str:
        """The text of a part that is made of fragments."""
        try:
            pieces = json.loads(row["payload"] or "{}").get("text_ref")
        except (ValueError, AttributeError, TypeError, RecursionError):
            return ""
        text = ""
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                text += _text(piece.get("literal"))
                fragment = piece.get("fragment")
                if isinstance(fragment, int) and abs(fragment) < 2**63:
                    text += self._fragment(fragment)
        return text

    def _fragment(self, identity: int) -> str:
        if not {"id", "content"} <= self._of("fragments"):
            return ""
        rows = self._rows("SELECT content FROM fragments WHERE id = ?", identity)
        return _text(rows[0]["content"]) if rows else ""

    def _kinds(self, message: str) -> Counter[str]:
        rows = self._rows("SELECT type FROM parts WHERE message_hash = ?", message)
        return Counter(kind for (kind,) in rows)

    def _fragments(self, table: str, response: str) -> list[str]:
        if not {"response_id", "fragment_id", "order"} <= self._of(table):
            return []
        rows = self._rows(
            f'SELECT fragment_id FROM {table} WHERE response_id = ? ORDER BY "order"', response
        )
        return [self._fragment(fragment) for (fragment,) in rows]

    def _attachments(self, response: str) -> dict[str, int]:
        table = "prompt_attachments"
        if "response_id" not in self._of(table) or "type" not in self._of("attachments"):
            return {}
        rows = self._rows(
            f"SELECT type FROM {table} JOIN attachments ON id = attachment_id"
            " WHERE response_id = ?",
            response,
        )
        pictures = sum(_text(row["type"]).startswith("image/") for row in rows)
        return {"image": pictures, "file": len(rows) - pictures} if rows else {}

    def _count(self, table: str, response: str) -> int:
        if "response_id" not in self._of(table):
            return 0
        return len(self._rows(f"SELECT 1 FROM {table} WHERE response_id = ?", response))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """The facts about the answer in a row: the model, tokens and seconds. llm stores no price."""
    tokens = _whole(row.get("input_tokens")), _whole(row.get("output_tokens"))
    usage = Usage(*tokens, calls=1, unpriced_calls=1) if any(tokens) else Usage()
    return {
        "model": _text(row.get("resolved_model")) or _text(row.get("model")) or None,
        "usage": usage,
        "seconds": _whole(row.get("duration_ms")) / 1000,
    }
