"""Blind choices between answers: whose was chosen, and at what price; none of their words."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from moa_cli.core.conversation import Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.schema import immediate, store_errors, transaction

# Seconds of a turn: more is no time.
_LONGEST = 1e9


@dataclass(frozen=True)
class Contender:
    """One of the answers that were shown.

    arm: what gave it ("mixture", "single:MODEL"); profile: of which profile; settings: a digest
    of all settings of that arm. usage: of its turn. seconds: the turn's.
    """

    arm: str
    profile: str
    settings: str
    usage: Usage
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A choice. when: seconds since 1970. contenders: in the order in which they were shown.

    winner: the place of the chosen one, from 0; None is a tie.
    """

    when: float
    contenders: tuple[Contender, ...]
    winner: int | None


class Comparisons:
    """All choices, in the file of a store. They hold no words, and so outlive conversations.

    unsound: how many were left out when they were read last, since their numbers cannot be right.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.unsound = 0

    def use(self, connection: sqlite3.Connection) -> None:
        """Go on with another file, as the store does."""
        self._connection = connection

    def add(self, comparison: Comparison) -> None:
        """Keep a choice. Raises StoreError."""
        with store_errors(), immediate(self._connection):
            number = self._connection.execute(
                "INSERT INTO comparisons (chosen, winner) VALUES (?, ?)",
                (comparison.when, comparison.winner),
            ).lastrowid
            self._connection.executemany(
                "INSERT INTO contenders VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        number,
                        place,
                        contender.arm,
                        contender.profile,
                        contender.settings,
                        json.dumps(asdict(contender.usage)),
                        contender.seconds,
                    )
                    for place, contender in enumerate(comparison.contenders)
                ],
            )

    def since(self, when: float = 0.0) -> list[Comparison]:
        """The choices from then on (seconds since 1970), oldest first. Raises StoreError."""
        with store_errors(), transaction(self._connection, "DEFERRED"):
            chosen = self._connection.execute(
                "SELECT id, chosen, winner FROM comparisons WHERE chosen >= ? ORDER BY id", (when,)
            ).fetchall()
            found = []
            self.unsound = 0
            for row in chosen:
                try:
                    contenders = self._contenders(row["id"])
                except ValueError:
                    self.unsound += 1
                    continue
                found.append(Comparison(row["chosen"], contenders, row["winner"]))
            return found

    def _contenders(self, number: int) -> tuple[Contender, ...]:
        """Raises ValueError if what they took cannot be right."""
        rows: Sequence[sqlite3.Row] = self._connection.execute(
            "SELECT arm, profile, settings, usage, seconds FROM contenders"
            " WHERE comparison_id = ? ORDER BY place",
            (number,),
        ).fetchall()
        found = tuple(
            Contender(
                arm=row["arm"],
                profile=row["profile"],
                settings=row["settings"],
                usage=load_value(Usage, json.loads(row["usage"])),
                seconds=row["seconds"],
            )
            for row in rows
        )
        for contender in found:
            check_usage(contender.usage)
            if not isinstance(contender.seconds, float) or not 0 <= contender.seconds < _LONGEST:
                raise ValueError("seconds is not a length of time")
        return found
