"""A conversation that is being imported, and turns made from another program's messages.

Each source has a reader of its own that feeds its messages to a `TurnBuilder`. Files may come from
anybody: numbers that cannot be amounts count as 0, and times in the future count as now. Each such
change, and everything that is not imported, is counted for the user.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from moa_cli.core.conversation import KeptTurn, Turn, TurnStatus, Usage
from moa_cli.store.store import ID_LETTERS

_T = TypeVar("_T")
# How changes to a file's numbers are named when they are counted.
FUTURE, NO_AMOUNT = "time in the future (taken as now)", "number out of bounds (taken as 0)"
# More tokens, dollars or seconds than one call can take, and few enough that sums stay exact.
_MOST_AMOUNT = 10**9
# The last second that a calendar of four-digit years can show in any time zone.
_LATEST = 253_402_200_000
_LONGEST_TITLE = 200
_NO_TEXT = "(something other than text, which was not imported)"


@dataclass(frozen=True)
class ConversationHead:
    """What `KeptConversation` holds beside its turns. id: the wanted one, if it is free."""

    id: str
    title: str
    profile: str
    created: float
    updated: float
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class IncomingConversation:
    """A conversation that is being read.

    Attributes:
        where: How messages name it.
        turns: Its turns; they can be read once.
        head: Returns its head, once all turns have been read.
        exact: Whether it comes from a store of moa, so that every field counts. Of other
            programs' conversations only the texts count.
        left: What is not imported, counted by kind; complete once all turns have been read.
        identity: Returns its id, or None while that has not been read.
    """

    where: str
    turns: Iterator[KeptTurn]
    head: Callable[[], ConversationHead]
    exact: bool = False
    left: Counter[str] = field(default_factory=Counter)
    identity: Callable[[], str | None] = lambda: None


def identity_of(*source: str) -> str:
    """An id that is the same each time for the same source."""
    digest = hashlib.sha256("\0".join(source).encode("utf-8", "replace")).digest()
    return "".join(ID_LETTERS[byte % len(ID_LETTERS)] for byte in digest[:10])


def text_in(table: Mapping[str, Any], key: str) -> str:
    """The text under that key; "" if there is none."""
    value = table.get(key)
    return value if isinstance(value, str) else ""


def table_in(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The table under that key; an empty one if there is none."""
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def list_in(table: Mapping[str, Any], key: str) -> list[Any]:
    """The list under that key; an empty one if there is none."""
    value = table.get(key)
    return value if isinstance(value, list) else []


def bounded(value: _T, changed: Counter[str]) -> _T:
    """A dataclass with each number that is not within 0 to 10^9 replaced by 0.

    This includes numbers in nested dataclasses and tuples, NaN and infinity.

    Args:
        value: The dataclass.
        changed: Counts the replaced numbers.
    """
    changes = {
        name: kept
        for name, held in vars(value).items()
        if (kept := _bounded(held, changed)) is not held
    }
    return cast("_T", dataclasses.replace(cast("Any", value), **changes)) if changes else value


def _bounded(held: Any, changed: Counter[str]) -> Any:
    kind = type(held)
    if kind is int or kind is float:
        if 0 <= held <= _MOST_AMOUNT:
            return held
        changed[NO_AMOUNT] += 1
        return kind(0)
    if kind is tuple:
        items = [_bounded(item, changed) for item in held]
        same = all(item is before for item, before in zip(items, held, strict=True))
        return held if same else tuple(items)
    return bounded(held, changed) if dataclasses.is_dataclass(kind) else held


def not_later(at: float, changed: Counter[str]) -> float:
    """The time, or now if it is in the future: else the conversation would stay the latest one."""
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
    return float(value) if 0 <= value <= _LATEST else None


@dataclass
class _OpenTurn:
    """A user message, and the answers to it so far."""

    prompt: str
    at: float | None
    system: str
    replies: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    model: str | None = None
    finish: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    stopped: bool = False


class TurnBuilder:
    """Makes turns from messages in their order: a user message and all answers to it are a turn.

    Attributes:
        profile: The profile that the turns get: the name of the program that they come from.
        left: What is not imported, counted by kind.
    """

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.left: Counter[str] = Counter()
        self._turns: list[_OpenTurn] = []
        self._system = ""

    def system(self, text: str) -> None:
        """Set the system prompt of the messages that follow."""
        self._system = text

    def user(self, text: str, at: float | None = None, *, more: bool = False) -> None:
        """Add a user message.

        Args:
            text: Its text. A message that holds nothing at all is left out.
            at: Seconds since 1970, if known.
            more: Whether it held something that is not text.
        """
        # Endpoints take no empty prompt, and the reply has to belong to one.
        if text.strip() or more:
            prompt = text if text.strip() else _NO_TEXT
            self._turns.append(_OpenTurn(prompt, at, self._system))

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
        turn = self._turns[-1]
        if text.strip():
            turn.replies.append(text)
            turn.stopped = stopped
            turn.finish = finish
        if reasoning.strip():
            turn.reasoning.append(reasoning)
        turn.model = model or turn.model
        turn.usage += usage or Usage()
        turn.seconds += seconds

    def conversation(
        self,
        where: str,
        source: str | None,
        *,
        title: str = "",
        created: float | None = None,
        updated: float | None = None,
    ) -> IncomingConversation:
        """The conversation of all messages so far.

        Args:
            where: How messages to the user name it.
            source: Its id in the other program; None to use its beginning in place of an id.
            title: Its title; "" to use the first prompt.
            created: Seconds since 1970; None to use the times of the messages.
            updated: Likewise.
        """
        times = [turn.at for turn in self._turns if turn.at is not None]
        first = created if created is not None else min(times, default=updated)
        begun = not_later(time.time() if first is None else first, self.left)
        last = not_later(max(updated or 0.0, begun, *times), self.left)
        turns = list(self._kept_turns(begun))
        if source is None:
            source = "\0".join((turns[0].turn.user, turns[0].turn.reply or "") if turns else ())
        title = " ".join(title.split()) or (turns[0].turn.user if turns else "")
        head = ConversationHead(
            identity_of(self.profile, source),
            " ".join(title.split())[:_LONGEST_TITLE] or "untitled",
            self.profile,
            begun,
            last,
        )
        return IncomingConversation(where, iter(turns), lambda: head, left=self.left)

    def _kept_turns(self, begun: float) -> Iterable[KeptTurn]:
        at, system = begun, ""
        for turn in self._turns:
            at = not_later(turn.at, self.left) if turn.at is not None else at
            settings = ""
            if turn.system != system:
                import tomli_w

                system = turn.system
                settings = tomli_w.dumps({"system": system}).rstrip("\n")
            status: TurnStatus = "interrupted" if not turn.replies or turn.stopped else "finished"
            made = Turn(
                user=turn.prompt,
                reply="\n\n".join(turn.replies) if turn.replies else None,
                status=status,
                profile=self.profile,
                model=turn.model if turn.replies else None,
                answered_by=turn.model if turn.replies else None,
                reasoning="\n\n".join(turn.reasoning),
                finish_reason=turn.finish,
                usage=turn.usage,
                seconds=turn.seconds,
            )
            yield KeptTurn(bounded(made, self.left), at, settings)
