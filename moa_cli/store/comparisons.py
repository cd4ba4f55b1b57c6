"""Stores blind comparisons of answers: which one the user chose, and what each one took.

No prompt and no answer is stored, so comparisons outlive the conversations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from moa_cli.core.conversation import Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.schema import Queries, immediate, store_errors, transaction

# Seconds. A turn cannot last longer.
_LONGEST = 1e9


@dataclass(frozen=True)
class Contender:
    """One of the answers that were shown, and what its turn took.

    arm: `mixture` or `single:MODEL`. profile: its name. settings: a digest of all settings.
    """

    arm: str
    profile: str
    settings: str
    usage: Usage
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A choice between answers, in the order in which they were shown.

    when: seconds since 1970. winner: the place of the chosen answer, from 0; None for a tie.
    """

    when: float
    contenders: tuple[Contender, ...]
    winner: int | None


class Comparisons(Queries):
    """All comparisons in the file of a store. Its methods raise StoreError.

    unsound: how many comparisons with impossible numbers the last call of `since` left out.
    """

    unsound = 0

    def add(self, comparison: Comparison) -> None:
        """Add a comparison."""
        with store_errors(), immediate(self._connection):
            number = self._connection.execute(
                "INSERT INTO comparisons (chosen, winner) VALUES (?, ?)",
                (comparison.when, comparison.winner),
            ).lastrowid
            for place, contender in enumerate(comparison.contenders):
                # The columns are the fields, in their order.
                values = {**vars(contender), "usage": json.dumps(vars(contender.usage))}
                self._connection.execute(
                    "INSERT INTO contenders VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (number, place, *values.values()),
                )

    def since(self, when: float = 0.0) -> list[Comparison]:
        """The comparisons made at `when` (seconds since 1970) or later, the oldest first."""
        with store_errors(), transaction(self._connection, "DEFERRED"):
            found = []
            self.unsound = 0
            for number, chosen, winner in self._rows(
                "SELECT id, chosen, winner FROM comparisons WHERE chosen >= ? ORDER BY id", when
            ):
                try:
                    found.append(Comparison(chosen, self._contenders(number), winner))
                except ValueError:
                    self.unsound += 1
            return found

    def _contenders(self, number: int) -> tuple[Contender, ...]:
        """The contenders of a comparison. Raises ValueError if their numbers are impossible."""
        found = []
        for arm, profile, settings, taken, seconds in self._rows(
            "SELECT arm, profile, settings, usage, seconds FROM contenders"
            " WHERE comparison_id = ? ORDER BY place",
            number,
        ):
            usage = load_value(Usage, json.loads(taken))
            check_usage(usage)
            if not isinstance(seconds, float) or not 0 <= seconds < _LONGEST:
                raise ValueError("seconds is not a length of time")
            found.append(Contender(arm, profile, settings, usage, seconds))
        return tuple(found)
