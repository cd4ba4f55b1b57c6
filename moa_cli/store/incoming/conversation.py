"""A conversation that is being imported, and turns made from another program's messages.

Each source has its own reader, which gives the messages to a `TurnBuilder`. Files may come from
anybody, so numbers that cannot be amounts count as 0, and times in the future count as now. Each
such change, and everything that is not imported, is counted for the user.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from moa_cli.core.conversation import KeptConversation, KeptTurn, Turn, TurnStatus, Usage
from moa_cli.core.values import field_names
from moa_cli.store.store import ID_LETTERS
from moa_cli.store.stored_values import LATEST

# The names of changes to a file's numbers, for the count that the user sees.
FUTURE, NO_AMOUNT = "time in the future (taken as now)", "number out of bounds (taken as 0)"
# The highest number of tokens, dollars or seconds that is taken from a file. One call cannot take
# more, and sums of such numbers stay exact.
_MOST_AMOUNT = 10**9
_LONGEST_TITLE = 200
_NO_TEXT = "(something other than text, which was not imported)"


@dataclass(frozen=True)
class IncomingConversation:
    """A conversation that is being read.

    turns: can be read only once. head: returns the conversation without its turns, after these have
    been read; it has the id that the conversation should get. exact: whether it comes from a store
    of moa, so that all fields are compared and not only the texts. left: counts of what is not
    imported, by kind; complete after all turns have been read. identity: returns its id, or None if
    the id has not been read yet.
    """

    turns: Iterator[KeptTurn]
    head: Callable[[], KeptConversation]
    exact: bool = False
    left: Counter[str] = field(default_factory=Counter)
    identity: Callable[[], str | None] = lambda: None


def identity_of(*source: str) -> str:
    """An id that is the same each time for the same source."""
    digest = hashlib.sha256("\0".join(source).encode("utf-8", "replace")).digest()
    return "".join(ID_LETTERS[byte % len(ID_LETTERS)] for byte in digest[:10])


class Table(dict[str, Any]):
    """A table that another program wrote. A value that is missing, or has another type, counts as
    empty."""

    def text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else ""

    def table(self, key: str) -> Table:
        value = self.get(key)
        return Table(value) if isinstance(value, dict) else Table()

    def list(self, key: str) -> Sequence[Any]:
        value = self.get(key)
        return value if isinstance(value, list) else ()

    def tables(self, key: str) -> Sequence[Table]:
        return [Table(item) for item in self.list(key) if isinstance(item, dict)]

    def path(self, parent: Callable[[Table], Table | None]) -> Sequence[Table]:
        """The messages from the first to this one. Raises ValueError if they form a loop."""
        path = [self]
        seen = {id(self)}
        while (above := parent(path[-1])) is not None:
            if id(above) in seen:
                raise ValueError("its messages form a loop")
            seen.add(id(above))
            path.append(above)
        return path[::-1]


def bounded(held: Any, changed: Counter[str]) -> Any:
    """A value in which each number outside of 0 to 10^9 is replaced by 0, and counted.

    This includes numbers in dataclasses and tuples, NaN and infinity. If there is no such number,
    the same object is returned.
    """
    kind: Any = type(held)
    if kind is int or kind is float:
        if 0 <= held <= _MOST_AMOUNT:
            return held
        changed[NO_AMOUNT] += 1
        return kind(0)
    if kind is tuple:
        items = tuple(bounded(item, changed) for item in held)
        same = all(item is before for item, before in zip(items, held, strict=True))
        return held if same else items
    names = field_names(kind)
    if names is None:
        return held
    changes = {
        name: kept
        for name in names
        if (kept := bounded(before := getattr(held, name), changed)) is not before
    }
    return dataclasses.replace(held, **changes) if changes else held


def not_later(at: float, changed: Counter[str]) -> float:
    """The time, or now if it is in the future. A conversation with a future time would stay the
    latest one."""
    now = time.time()
    if at <= now:
        return at
    changed[FUTURE] += 1
    return now


def seconds_of(value: Any) -> float | None:
    """A number or an ISO 8601 text as seconds since 1970; None if it is not a time.

    A text without a time zone is in UTC.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= LATEST else None


@dataclass
class _OpenTurn:
    """A user message, and the answers to it so far. turn: without the texts of the answers."""

    turn: Turn
    at: float | None
    system: str
    replies: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)


@dataclass(eq=False)
class TurnBuilder:
    """Makes turns from messages in their order. A user message and all answers to it are a turn.

    profile: the profile name of the turns: the name of the program that they come from. left:
    counts of what is not imported, by kind.
    """

    profile: str
    left: Counter[str] = field(default_factory=Counter)
    _turns: list[_OpenTurn] = field(default_factory=list)
    _system: str = ""

    def system(self, text: str) -> None:
        """Set the system prompt of the messages that follow."""
        self._system = text

    def user(self, text: str, at: Any = None, *, more: bool = False) -> None:
        """Add a user message, unless it is empty.

        at: its time (see `seconds_of`). more: whether it had something other than text.
        """
        # A message without text gets a placeholder, because endpoints take no empty prompt, and the
        # reply needs a prompt.
        if text.strip() or more:
            prompt = text if text.strip() else _NO_TEXT
            turn = Turn(prompt, status="interrupted", profile=self.profile)
            self._turns.append(_OpenTurn(turn, seconds_of(at), self._system))

    def assistant(
        self,
        text: str,
        *,
        model: str | None = None,
        reasoning: str = "",
        finish: str | None = None,
        usage: Usage | None = None,
        seconds: float = 0.0,
        stopped: bool = False,
    ) -> None:
        """Add an answer, or a part of one. stopped: whether the user stopped it."""
        if not self._turns:
            self.left["reply without a prompt"] += bool(text.strip())
            return
        last = self._turns[-1]
        turn = last.turn
        if text.strip():
            last.replies.append(text)
            status: TurnStatus = "interrupted" if stopped else "finished"
            turn = replace(turn, status=status, finish_reason=finish)
        if reasoning.strip():
            last.reasoning.append(reasoning)
        usage = turn.usage + (usage or Usage())
        seconds += turn.seconds
        last.turn = replace(turn, model=model or turn.model, usage=usage, seconds=seconds)

    def conversation(
        self, source: str, title: str, created: Any = None, updated: Any = None
    ) -> IncomingConversation:
        """The conversation of all messages so far.

        source: its id in the other program; "" to make an id from its first turn. title: "" to use
        the first prompt. created, updated: its times (see `seconds_of`); if one is unknown, the
        times of the messages are used.
        """
        times = [turn.at for turn in self._turns if turn.at is not None]
        changed = seconds_of(updated)
        first = seconds_of(created)
        if first is None:
            first = min(times, default=changed)
        begun = not_later(time.time() if first is None else first, self.left)
        last = not_later(max(changed or 0.0, begun, *times), self.left)
        turns = list(self._kept_turns(begun))
        if not source:
            source = "\0".join((turns[0].turn.user, turns[0].turn.reply or "") if turns else ())
        if not title.strip() and turns:
            title = turns[0].turn.user
        title = " ".join(title.split())[:_LONGEST_TITLE] or "untitled"
        identity = identity_of(self.profile, source)
        head = KeptConversation(identity, title, self.profile, begun, last, ())
        return IncomingConversation(iter(turns), lambda: head, left=self.left)

    def _kept_turns(self, begun: float) -> Iterable[KeptTurn]:
        at, system = begun, ""
        for opened in self._turns:
            at = not_later(opened.at, self.left) if opened.at is not None else at
            settings = ""
            if opened.system != system:
                import tomli_w

                system = opened.system
                settings = tomli_w.dumps({"system": system}).rstrip("\n")
            reply = "\n\n".join(opened.replies) if opened.replies else None
            model = opened.turn.model if opened.replies else None
            reasoning = "\n\n".join(opened.reasoning)
            made = replace(
                opened.turn, reply=reply, model=model, answered_by=model, reasoning=reasoning
            )
            yield KeptTurn(bounded(made, self.left), at, settings)
