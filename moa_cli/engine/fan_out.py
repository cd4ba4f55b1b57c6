"""The memory of fan-outs: the proposers answer a user's message once, not in each step of its work.

An agent sends the whole conversation again with each result of a tool. Without a memory, a loop
of twenty steps would ask all proposers twenty times. The key of a fan-out is the profile without
its aggregator, the messages up to the user's last one, and who asks, so that no client needs to do
anything.

What models have said about the proposals is kept with them: it is about the user's message and the
proposals, and not about results that have come since.

Only turns that may be steps of such work use it: those that offer tools, or have calls or results
of tools behind the prompt. A prompt that comes again without them is a new turn, unless it had no
reply. A prompt whose reply the client has begun is also a new turn: evaluations ask the same
several times.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from moa_cli.core.conversation import Conversation, Message, Proposal
from moa_cli.engine.advice import has_results, offers_tools
from moa_cli.engine.agreement.kept_reviews import KeptReviews
from moa_cli.engine.prompts import EarlierProposal, Reference
from moa_cli.profile import Profile, to_table

# Bytes that a proposal or a review takes besides its text.
_BYTES_BESIDE = 1_000


@dataclass
class _Kept:
    """A fan-out that has ended.

    seen: how many messages behind the prompt the proposers were shown. used: when it was last asked
    for. size: in bytes. accepted: why a stage of the route was enough, if one was. unanswered:
    whether the turn that made it, or used it last, failed. reviews: of the proposals.
    """

    proposals: tuple[Proposal, ...]
    seen: int
    used: float
    size: int
    accepted: str | None = None
    unanswered: bool = False
    reviews: KeptReviews = field(default_factory=KeptReviews)


class FanOutMemory:
    """The fan-outs of a server's turns, each for some minutes.

    Turns that ask for the same one at the same time share it: the first one asks the proposers, and
    the others wait. If the first one is cancelled or fails, the next one asks. A memory belongs to
    one event loop.

    Args:
        most: How many fan-outs are kept.
        most_bytes: How many bytes their proposals and reviews may have together.
        seconds: How long an unused one is kept.
        clock: The time in seconds.
    """

    def __init__(
        self,
        *,
        most: int = 1_000,
        most_bytes: int = 64 << 20,
        seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        # The least recently used one first.
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._running: dict[bytes, FanOut] = {}
        self._size = 0

    async def claim(
        self, profile: Profile, conversation: Conversation, client: str = ""
    ) -> FanOut | None:
        """The fan-out of a turn, kept or new; None if the turn is not to be remembered. If another
        turn makes it now, this waits for it.

        Args:
            profile: The mixture of the turn.
            conversation: What was said, and the message that is answered.
            client: Who asks. Other clients do not share it.

        Returns:
            The fan-out, or None.
        """
        offered = offers_tools(profile.aggregator) and profile.tools != "ignore"
        after = conversation.after
        works = any(message.role == "tool" or message.tool_calls for message in after)
        if profile.fan_out == "request" or not profile.rounds or not (offered or works):
            return None
        key = _key(profile, conversation, client)
        while True:
            kept = self._look_up(key)
            if kept is not None and (after or kept.unanswered):
                return FanOut(self, key, after, kept)
            running = self._running.get(key)
            if running is None:
                self._running[key] = made = FanOut(self, key, after)
                return made
            await running.ended.wait()
            if running.kept is not None:
                # Also if it was too large to be kept.
                return FanOut(self, key, after, running.kept)

    def _look_up(self, key: bytes) -> _Kept | None:
        now = self._clock()
        while self._kept:
            oldest, kept = next(iter(self._kept.items()))
            if now - kept.used < self._seconds:
                break
            self._drop(oldest)
        kept_now = self._kept.get(key)
        if kept_now is not None:
            kept_now.used = now
            self._kept.move_to_end(key)
        return kept_now

    def _keep(
        self, key: bytes, proposals: Sequence[Proposal], seen: int, accepted: str | None
    ) -> _Kept:
        small = tuple(replace(proposal, reasoning="", citations=()) for proposal in proposals)
        self._drop(key)
        kept = _Kept(small, seen, self._clock(), _BYTES_BESIDE + _size_of(small), accepted)
        kept.reviews = KeptReviews(
            settled=True, grown=lambda reviews: self._grow(key, kept, _size_of(reviews))
        )
        self._kept[key] = kept
        self._size += kept.size
        self._make_room()
        return kept

    def _grow(self, key: bytes, kept: _Kept, size: int) -> None:
        kept.size += size
        # One that was dropped still serves the turns that have it.
        if self._kept.get(key) is kept:
            self._size += size
            self._make_room()

    def _make_room(self) -> None:
        while len(self._kept) > self._most or self._size > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept.size

    def _end(self, fan_out: FanOut) -> None:
        if self._running.get(fan_out.key) is fan_out:
            del self._running[fan_out.key]
        fan_out.ended.set()


class FanOut:
    """The fan-out of one turn. kept: what there is of it; None until the turn that has to make it
    has done so. ended: set once no more will come of it."""

    def __init__(
        self,
        memory: FanOutMemory,
        key: bytes,
        after: Sequence[Message],
        kept: _Kept | None = None,
    ) -> None:
        self.key = key
        self.kept = kept
        self.ended = asyncio.Event()
        self._memory = memory
        self._after = after

    @property
    def references(self) -> tuple[Reference, ...] | None:
        """The proposals that are there already; None if this turn asks the proposers."""
        if self.kept is None:
            return None
        if has_results(self._after[self.kept.seen :]):
            return tuple(EarlierProposal(**vars(proposal)) for proposal in self.kept.proposals)
        return self.kept.proposals

    def keep(self, references: Sequence[Reference], accepted: str | None) -> None:
        """The proposers have answered. accepted: why a stage of the route was enough."""
        proposals = [reference for reference in references if isinstance(reference, Proposal)]
        self.kept = self._memory._keep(self.key, proposals, len(self._after), accepted)
        self._memory._end(self)

    def end(self, *, failed: bool = False) -> None:
        """The turn has ended. failed: whether it has told its user that there is no reply."""
        if self.kept is not None:
            self.kept.unanswered = failed
        self._memory._end(self)


def _size_of(proposals: Sequence[Proposal]) -> int:
    """About how many bytes they take."""
    texts = sum(len(proposal.text.encode("utf-8", "replace")) for proposal in proposals)
    return texts + _BYTES_BESIDE * len(proposals)


def _key(profile: Profile, conversation: Conversation, client: str) -> bytes:
    """A hash of all that the proposals depend on, except what follows the prompt, and of who has
    paid for them."""
    settings = profile.kept("fan_out", lambda: _settings_of(profile))
    digest = hashlib.sha256(repr((client, settings)).encode("utf-8", "replace"))
    messages = conversation.messages()
    for message in messages[: len(messages) - len(conversation.after)]:
        digest.update(repr(message).encode("utf-8", "replace"))
    return digest.digest()


def _settings_of(profile: Profile) -> str:
    """All settings but the aggregator's, as a text."""
    table = to_table(profile)
    del table["aggregator"]
    return repr((profile.rounds, table))
