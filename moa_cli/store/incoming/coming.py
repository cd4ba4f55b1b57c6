"""A conversation on its way in, and turns made of messages that others kept."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core.conversation import KeptTurn, Turn, TurnStatus, Usage
from moa_cli.store.incoming.bounds import bounded, not_later
from moa_cli.store.store import ID_LETTERS

_LONGEST_TITLE = 200
_NO_TEXT = "(something other than text, which was not imported)"


@dataclass(frozen=True)
class ConversationHead:
    """What a conversation is besides its turns; as in `KeptConversation`.

    id: the one that it gets, if that is free.
    """

    id: str
    title: str
    profile: str
    created: float
    updated: float
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class IncomingConversation:
    """A conversation that is being read.

    where: what to call it in a message. turns: to be read once; head: known after that.
    exact: whether it is our own, every field of which counts; of others only what was said.
    left: what is not taken of it, by kind; complete once its turns have been read.
    identity: its id, as soon as that is known; None before.
    """

    where: str
    turns: Iterator[KeptTurn]
    head: Callable[[], ConversationHead]
    exact: bool = False
    left: Counter[str] = field(default_factory=Counter)
    identity: Callable[[], str | None] = lambda: None


def identity_of(*source: str) -> str:
    """An id that the same source always gets."""
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


@dataclass
class _Asked:
    """A user message, and what has answered it so far."""

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
    """TurnBuilder in their order, made into turns: a user message, and all that answered it.

    profile: what the turns are said to be of, the program that they came from.
    """

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.left: Counter[str] = Counter()
        self._asked: list[_Asked] = []
        self._system = ""

    def system(self, text: str) -> None:
        """A system prompt for what follows."""
        self._system = text

    def user(self, text: str, at: float | None = None, *, more: bool = False) -> None:
        """A user message. at: seconds since 1970, if known. more: whether it held what is no
        text; one that held nothing at all is none."""
        if text.strip():
            self._asked.append(_Asked(text, at, self._system))
        elif more:
            # The reply belongs to it, and no endpoint takes an empty prompt.
            self._asked.append(_Asked(_NO_TEXT, at, self._system))

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
        """An answer, or a part of one. stopped: by the user, before its end."""
        if not self._asked:
            self.left["reply without a prompt"] += bool(text.strip())
            return
        asked = self._asked[-1]
        if text.strip():
            asked.replies.append(text)
            asked.stopped = stopped
            asked.finish = finish
        if reasoning.strip():
            asked.reasoning.append(reasoning)
        asked.model = model or asked.model
        asked.usage += usage or Usage()
        asked.seconds += seconds

    def coming(
        self,
        where: str,
        source: str | None,
        *,
        title: str = "",
        created: float | None = None,
        updated: float | None = None,
    ) -> IncomingConversation:
        """The conversation of these messages.

        source: its id where it came from; None if it has none: then its beginning stands for it.
        created, updated: seconds since 1970; None is told by the messages.
        """
        times = [asked.at for asked in self._asked if asked.at is not None]
        first = created if created is not None else min(times, default=updated)
        begun = not_later(time.time() if first is None else first, self.left)
        last = not_later(max(updated or 0.0, begun, *times), self.left)
        turns = list(self._turns(begun))
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

    def _turns(self, begun: float) -> Iterable[KeptTurn]:
        at, system = begun, ""
        for asked in self._asked:
            at = not_later(asked.at, self.left) if asked.at is not None else at
            settings = ""
            if asked.system != system:
                import tomli_w

                system = asked.system
                settings = tomli_w.dumps({"system": system}).rstrip("\n")
            status: TurnStatus = "interrupted" if not asked.replies or asked.stopped else "finished"
            turn = Turn(
                user=asked.prompt,
                reply="\n\n".join(asked.replies) if asked.replies else None,
                status=status,
                profile=self.profile,
                model=asked.model if asked.replies else None,
                answered_by=asked.model if asked.replies else None,
                reasoning="\n\n".join(asked.reasoning),
                finish_reason=asked.finish,
                usage=asked.usage,
                seconds=asked.seconds,
            )
            yield KeptTurn(bounded(turn, self.left), at, settings)
