"""The memory of fan-outs: the proposers answer a user's message once, and not in each step of a
tool loop.

An agent sends the whole conversation again with each tool result. Without a memory, a loop of
twenty steps would ask all proposers twenty times. The key of a fan-out consists of the profile
without its aggregator, the messages up to the user's last one, and the client. So clients need not
do anything for it.

Reviews of the proposals are kept with them, because they are about the user's message and the
proposals, and not about tool results that have come since.

Only turns that may be steps of a tool loop use the memory: they offer tools, or have tool calls or
results after the prompt. A prompt that comes again without calls and results is a new turn, unless
it had no reply. A prompt whose reply the client has begun is also a new turn, because evaluations
send the same prompt several times.
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

# About how many bytes a proposal or a review takes in memory besides its text.
_BYTES_BESIDE = 1_000


@dataclass
class _Kept:
    """A fan-out that has ended.

    seen: how many messages after the prompt the proposers were shown. used: when it was last used,
    by the memory's clock. size: in bytes. accepted: why a stage of the route was enough, or None.
    unanswered: whether the turn that made it, or used it last, failed. reviews: of the proposals.
    """

    proposals: tuple[Proposal, ...]
    seen: int
    used: float
    size: int
    accepted: str | None = None
    unanswered: bool = False
    reviews: KeptReviews = field(default_factory=KeptReviews)


class FanOutMemory:
    """The fan-outs of a server's turns. Each is kept for some minutes.

    Turns that need the same fan-out at the same time share it: the first turn asks the proposers,
    and the others wait. If the first turn is cancelled or fails, the next one asks. A memory
    belongs to one event loop.

    Args:
        most: How many fan-outs are kept.
        most_bytes: How many bytes their proposals and reviews may have together.
        seconds: How long an unused fan-out is kept.
        clock: Returns the time in seconds.
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
        """The fan-out of a turn, kept or new; None if the turn does not use the memory. If another
        turn is making it now, this waits.

        Args:
            profile: The mixture of the turn.
            conversation: The earlier turns, and the message to answer.
            client: The client that asks. Other clients do not share the fan-out.

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
                # Share the fan-out even if it was too large to be kept.
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
        # A fan-out that was dropped is still used by the turns that have it, but takes no room in
        # the memory.
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
    """The fan-out of one turn. kept: its proposals; None until the turn has made them. ended: set
    when they are kept, or the turn has ended without them."""

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
        """The proposals if they exist already; None if this turn has to ask the proposers."""
        if self.kept is None:
            return None
        if has_results(self._after[self.kept.seen :]):
            return tuple(EarlierProposal(**vars(proposal)) for proposal in self.kept.proposals)
        return self.kept.proposals

    def keep(self, references: Sequence[Reference], accepted: str | None) -> None:
        """Keep the answers of the proposers. accepted: why a stage of the route was enough, or
        None."""
        proposals = [reference for reference in references if isinstance(reference, Proposal)]
        self.kept = self._memory._keep(self.key, proposals, len(self._after), accepted)
        self._memory._end(self)

    def end(self, *, failed: bool = False) -> None:
        """The turn has ended. failed: whether it has told its user that there is no reply."""
        if self.kept is not None:
            self.kept.unanswered = failed
        self._memory._end(self)


def _size_of(proposals: Sequence[Proposal]) -> int:
    """About how many bytes proposals take in memory."""
    texts = sum(len(proposal.text.encode("utf-8", "replace")) for proposal in proposals)
    return texts + _BYTES_BESIDE * len(proposals)


def _key(profile: Profile, conversation: Conversation, client: str) -> bytes:
    """A hash of all that the proposals depend on, except the messages after the prompt, and of the
    client that has paid for them."""
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
