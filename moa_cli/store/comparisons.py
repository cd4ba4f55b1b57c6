"""Stores blind comparisons of answers: which one the user chose, and what each one took.

No prompt and no answer is stored, so comparisons outlive the conversations.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass

from moa_cli.core.conversation import Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.schema import Queries, immediate, store_errors, transaction

# Seconds. A turn cannot last longer.
_LONGEST = 1e9


@dataclass(frozen=True)
class Contender:
    """One of the answers that were shown.

    Attributes:
        arm: What answered: `mixture` or `single:MODEL`.
        profile: The name of its profile.
        settings: A digest of all settings of that arm.
        usage: What its turn took.
        seconds: How long its turn took.
    """

    arm: str
    profile: str
    settings: str
    usage: Usage
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A choice between answers.

    Attributes:
        when: Seconds since 1970.
        contenders: The answers, in the order in which they were shown.
        winner: The place of the chosen answer, from 0; None for a tie.
    """

    when: float
    contenders: tuple[Contender, ...]
    winner: int | None


class Comparisons(Queries):
    """All comparisons in the file of a store. Its methods raise StoreError.

    Attributes:
        unsound: How many comparisons with impossible numbers the last call of `since` left out.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.unsound = 0

    def add(self, comparison: Comparison) -> None:
        """Add a comparison."""
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
        """The comparisons made at `when` (seconds since 1970) or later, the oldest first."""
        with store_errors(), transaction(self._connection, "DEFERRED"):
            chosen = self._rows(
                "SELECT id, chosen, winner FROM comparisons WHERE chosen >= ? ORDER BY id", when
            )
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
        """The contenders of a comparison. Raises ValueError if their numbers are impossible."""
        rows = self._rows(
            "SELECT arm, profile, settings, usage, seconds FROM contenders"
            " WHERE comparison_id = ? ORDER BY place",
            number,
        )
        found = tuple(
            Contender(arm, profile, settings, load_value(Usage, json.loads(usage)), seconds)
            for arm, profile, settings, usage, seconds in rows
        )
        for contender in found:
            check_usage(contender.usage)
            if not isinstance(contender.seconds, float) or not 0 <= contender.seconds < _LONGEST:
                raise ValueError("seconds is not a length of time")
        return found
