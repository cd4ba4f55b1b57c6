"""Stores blind comparisons of answers: which one the user chose, and the usage of each one.

Prompts and answers are stored only if the user allowed it. They have their own rows, so that they
can be deleted while the choice stays. Comparisons stay when conversations are deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from moa_cli.core.conversation import Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.schema import Queries, immediate, store_errors, transaction
from moa_cli.store.stored_values import pack, unpack, without_defaults

# A turn cannot last this many seconds. A higher number in the file is damaged.
_LONGEST = 1e9
_EVEN = 0.5
_Kind = Literal["details", "texts"]


@dataclass(frozen=True)
class Contender:
    """The source of one of the answers that were shown, and the usage of its turn.

    arm: `mixture` or `single:MODEL`. profile: its name. settings: a digest of all settings.
    """

    arm: str
    profile: str
    settings: str
    usage: Usage
    seconds: float

    @property
    def name(self) -> tuple[str, str, str]:
        """The key that identifies it among all contenders."""
        return self.arm, self.profile, self.settings


@dataclass(frozen=True)
class ComparedTexts:
    """The texts of a comparison.

    answers: of the contenders, in their order. before: role and text of each message before the
    prompt.
    """

    prompt: str
    answers: tuple[str, ...]
    before: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A choice between answers, in the order in which they were shown.

    Contenders with the same answer were shown as one answer, and stand next to each other. They are
    chosen together.

    when: seconds since 1970. winner: the place of the first contender with the chosen answer, from
    0; None for a tie. shown: for each contender, the number of its answer as shown; () if all
    answers differ. none_good: whether it is a tie because no answer was good. note: a note of the
    user. texts: None if they were not stored, or not read. number: its number in the store; it
    does not count when comparisons are compared for equality.
    """

    when: float
    contenders: tuple[Contender, ...]
    winner: int | None
    shown: tuple[int, ...] = ()
    none_good: bool = False
    note: str = ""
    texts: ComparedTexts | None = None
    number: int | None = field(default=None, compare=False)

    @property
    def answers(self) -> tuple[int, ...]:
        """For each contender, the number of its answer as shown, from 0."""
        return self.shown or tuple(range(len(self.contenders)))

    @property
    def winners(self) -> tuple[int, ...]:
        """The places of the contenders that gave the chosen answer; () for a tie."""
        if self.winner is None:
            return ()
        answers = self.answers
        return tuple(
            place for place, answer in enumerate(answers) if answer == answers[self.winner]
        )

    def share_better(self, first: int, second: int) -> float | None:
        """The result of the choice for two contenders: 1 if the first is better, 0 if the second
        is, a half for a tie or the same answer; None if another answer was chosen."""
        answers = self.answers
        if self.winner is None or answers[first] == answers[second]:
            return _EVEN
        chosen = answers[self.winner]
        if chosen not in (answers[first], answers[second]):
            return None
        return float(chosen == answers[first])


@dataclass(frozen=True)
class _Details:
    """Fields that few comparisons have; see `Comparison`."""

    shown: tuple[int, ...] = ()
    none_good: bool = False
    note: str = ""


class Comparisons(Queries):
    """All comparisons in the file of a store. Its methods raise StoreError.

    unsound: how many comparisons with impossible numbers the last call of `since` left out.
    """

    unsound = 0

    def add(self, comparison: Comparison) -> int:
        details = _Details(comparison.shown, comparison.none_good, comparison.note)
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
            if details != _Details():
                self._add_words(number, "details", details)
            if comparison.texts is not None:
                self._add_words(number, "texts", comparison.texts)
        return number or 0

    def _add_words(self, number: int | None, kind: _Kind, words: object) -> None:
        self._connection.execute(
            "INSERT INTO comparison_words VALUES (?, ?, ?)",
            (number, kind, pack(without_defaults(words))),
        )

    def since(self, when: float = 0.0, *, texts: bool = False) -> list[Comparison]:
        """The comparisons made at `when` (seconds since 1970) or later, the oldest first.

        texts: whether their prompts and answers are read too.
        """
        with store_errors(), transaction(self._connection, "DEFERRED"):
            found = []
            self.unsound = 0
            for number, chosen, winner in self._rows(
                "SELECT id, chosen, winner FROM comparisons WHERE chosen >= ? ORDER BY id", when
            ):
                try:
                    found.append(self._comparison(number, chosen, winner, texts=texts))
                except ValueError:
                    self.unsound += 1
            return found

    def count_texts(self) -> int:
        """The number of comparisons whose prompts and answers are stored."""
        return len(self._column("SELECT 1 FROM comparison_words WHERE kind = 'texts'"))

    def _comparison(
        self, number: int, chosen: float, winner: int | None, *, texts: bool
    ) -> Comparison:
        """Raises ValueError if the numbers of the comparison are impossible."""
        contenders = self._contenders(number)
        count = len(contenders)
        details = self._words(number, "details")
        told = _Details() if details is None else load_value(_Details, details, strict=True)
        if winner is not None and not 0 <= winner < count:
            raise ValueError("the chosen answer is none of those shown")
        if told.shown and (len(told.shown) != count or not set(told.shown) <= set(range(count))):
            raise ValueError("the answers are not those of the contenders")
        return Comparison(
            chosen,
            contenders,
            winner,
            told.shown,
            told.none_good,
            told.note,
            self._texts(number, count) if texts else None,
            number,
        )

    def _texts(self, number: int, count: int) -> ComparedTexts | None:
        """The texts of a comparison; None if there are none. Damaged texts also give None, because
        the choice itself is still valid."""
        try:
            values = self._words(number, "texts")
            texts = None if values is None else load_value(ComparedTexts, values, strict=True)
        except ValueError:
            return None
        return None if texts is None or len(texts.answers) != count else texts

    def _words(self, number: int, kind: _Kind) -> dict[str, Any] | None:
        row = self._row(
            "SELECT packed FROM comparison_words WHERE comparison_id = ? AND kind = ?", number, kind
        )
        if row is None:
            return None
        found = unpack(row["packed"])
        if not isinstance(found, dict):
            raise ValueError("the words are no table")
        return found

    def _contenders(self, number: int) -> tuple[Contender, ...]:
        """The contenders of a comparison. Raises ValueError if their numbers are impossible."""
        found: list[Contender] = []
        for place, arm, profile, settings, taken, seconds in self._rows(
            "SELECT place, arm, profile, settings, usage, seconds FROM contenders"
            " WHERE comparison_id = ? ORDER BY place",
            number,
        ):
            usage = load_value(Usage, json.loads(taken))
            check_usage(usage)
            if not isinstance(seconds, float) or not 0 <= seconds < _LONGEST:
                raise ValueError("seconds is not a length of time")
            if place != len(found):
                raise ValueError("a contender is lost")
            found.append(Contender(arm, profile, settings, usage, seconds))
        return tuple(found)

    def delete(self, numbers: Iterable[int], *, texts_only: bool) -> None:
        """Delete comparisons, or only their prompts and answers. `Store.delete_comparisons` also
        wipes their texts from the file."""
        with store_errors(), immediate(self._connection):
            for number in numbers:
                # The other rows of a comparison are deleted with it (ON DELETE CASCADE).
                query = "DELETE FROM comparisons WHERE id = ?"
                if texts_only:
                    query = (
                        "DELETE FROM comparison_words WHERE comparison_id = ? AND kind = 'texts'"
                    )
                self._connection.execute(query, (number,))
