"""The state of a chat: its conversation, its mixture and what it has spent.

Nothing here knows of a terminal.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from moa_cli.core.conversation import Conversation, Part, Turn, Usage
from moa_cli.core.endpoints import Clients, ModelInfo
from moa_cli.core.errors import ProfileError, UsageError
from moa_cli.core.events import Event
from moa_cli.core.strategy import Strategy
from moa_cli.engine import Control, Limits, check_names, run_report, run_turn
from moa_cli.engine.history import HistoryUse, history_uses
from moa_cli.engine.merging import last_turn, mergeable, merged, reported
from moa_cli.engine.summary import sum_up, summed_up
from moa_cli.profile import Overrides, Profile
from moa_cli.profile.layering import override

# How many of the newest turns a summary leaves as they are: what is asked next is often about them.
_NOT_SUMMED_UP = 1


class Session:
    """A conversation, and the mixture that answers in it.

    conversation: the turns so far that have a reply. last: the latest turn, even if it failed.
    settled: whether the profile's candidates were chosen among; see `use`. replaced: the turns that
    do not count any more, since the turn kept last. begun: how many conversations were begun or
    continued here. merging: the turn from whose proposals a new reply is being written. spent: what
    all turns took, by model name, including turns that were taken back.
    """

    def __init__(
        self,
        profile: Profile,
        clients: Clients,
        limits: Limits,
        conversation: Conversation | None = None,
    ) -> None:
        self.profile = profile
        self.settled = True
        self.conversation = Conversation()
        self.last: Turn | None = None
        self.begun = 0
        self.go_on(conversation or Conversation())
        self.replaced: tuple[Turn, ...] = ()
        self.spent: dict[str, Usage] = {}
        self._taken_back: Turn | None = None
        # A try without a reply, of the message that is asked again.
        self._tried: Turn | None = None
        # Answered already; `last` is an attempt to answer it anew, without a reply.
        self._answered: Turn | None = None
        self.merging: Turn | None = None
        # And what they were computed from.
        self._uses: Sequence[HistoryUse] = ()
        self._uses_of: tuple[Profile, Conversation, Mapping[str, int | None]] | None = None
        self._clients = clients
        self._limits = limits

    def models_text(self) -> str:
        """The models of each round, a line each, and what makes the reply."""
        profile = self.profile
        lines = [
            f"round {number}: " + ", ".join(proposer.model for proposer in profile.layer(number))
            for number in range(1, profile.rounds + 1)
        ]
        if profile.strategy != "synthesize":
            lines.append(f"strategy: {profile.strategy}")
        if profile.judge is not None:
            lines.append(f"judge: {profile.judge}")
        return "\n".join([*lines, f"aggregator: {profile.aggregator.model}"])

    def known(self) -> dict[str, ModelInfo]:
        """What is known of the profile's models, by name, without any request."""
        return {model: self._clients.known(model) for model in self.profile.models()}

    @property
    def assumed_context(self) -> int | None:
        """See `Limits`."""
        return self._limits.assumed_context

    def history_uses(self) -> Sequence[HistoryUse]:
        """How much of each model's context the conversation takes, the tightest model first.

        It is asked for with each key that is pressed, so it is kept while nothing changes.
        """
        contexts = {model: info.context_length for model, info in self.known().items()}
        now = self.profile, self.conversation, contexts
        if now != self._uses_of:
            self._uses, self._uses_of = history_uses(*now, self.assumed_context), now
        return self._uses

    def ask(
        self,
        prompt: str,
        control: Control | None = None,
        aggregator: str | None = None,
        parts: Sequence[Part] = (),
    ) -> AsyncGenerator[Event, None]:
        """Begin a turn, and return its events. Pass the finished turn to `keep`.

        aggregator: writes only this reply, in place of the profile's. parts: all parts of the
        prompt, if there are others than text. Raises ProfileError if it
        is not the name of a model; a turn that was taken back for this is put back then.
        """
        profile = self.profile
        try:
            if aggregator:
                other = Overrides(aggregator=aggregator)
                profile = self._checked(override(profile, other, "/retry"))
        except ProfileError:
            self.put_back()
            raise
        last = self.last
        if last is not None and not last.reply and (last.user, last.parts) == (prompt, (*parts,)):
            self._tried = last
        asked = self.conversation.ask(prompt, parts)
        return run_turn(profile, asked, self._clients, control=control, limits=self._limits)

    def remerge(
        self,
        control: Control | None = None,
        strategy: Strategy | None = None,
        aggregator: str | None = None,
    ) -> tuple[str, AsyncGenerator[Event, None]]:
        """Begin a turn that makes a new reply of the last proposals: no proposer is asked.

        strategy, aggregator: other ones than the profile's, for this reply alone.

        Returns the last prompt, and the events of the turn. Raises UsageError if there are no
        proposals, ProfileError like `ask`.
        """
        profile = self.profile
        if strategy or aggregator:
            other = Overrides(strategy=strategy, aggregator=aggregator or None)
            profile = self._checked(override(profile, other, "/remerge"))
        last = self.last
        references = mergeable(last.proposals) if last else ()
        if not references:
            raise UsageError("there are no proposals to write a reply from")
        prompt = self.take_back()
        self.merging = last
        events = run_turn(
            profile,
            self.conversation.ask(prompt, last.parts if last else ()),
            self._clients,
            control=control,
            limits=self._limits,
            references=references,
            reviews=last.reviews if last else (),
        )
        return prompt, events

    def report(self, control: Control | None = None) -> AsyncGenerator[Event, None]:
        """Begin a report on the last proposals, and return its events. Pass the resulting turn to
        `keep_report`. Raises UsageError if there is nothing to compare."""
        last = self.last
        references = mergeable(last.proposals) if last else ()
        if last is None or len(references) < 2:
            raise UsageError("there are fewer than two proposals to compare")
        turns = self.conversation.turns
        if turns and (turns[-1] is last or turns[-1] is self._answered):
            turns = turns[:-1]
        return run_report(
            self.profile,
            replace(self.conversation, turns=turns).ask(last.user, last.parts),
            self._clients,
            references,
            control=control,
            limits=self._limits,
            reviews=last.reviews,
        )

    def keep_report(self, turn: Turn) -> None:
        """Keep with the last turn the report that was made on it, and what that took."""
        self.count(turn)
        last = self.last
        assert last is not None
        self.last = reported(last, turn)
        turns = self.conversation.turns
        if turns and turns[-1] is last:
            self.conversation = replace(self.conversation, turns=(*turns[:-1], self.last))

    def sum_up(
        self, focus: str = "", control: Control | None = None
    ) -> tuple[int, AsyncGenerator[Event, None]]:
        """Begin to sum up the turns before the newest one, and return how many the summary tells
        of, and its events. Pass the resulting turn to `keep_summary`.

        focus: what the summary is to keep in particular. Raises UsageError if there is nothing to
        sum up.
        """
        if len(self.conversation.earlier) <= _NOT_SUMMED_UP:
            raise UsageError("there are no turns before the last one to summarize")
        return sum_up(
            self.profile,
            self.conversation,
            self._clients,
            keep=_NOT_SUMMED_UP,
            focus=focus,
            control=control,
            limits=self._limits,
        )

    def keep_summary(self, turn: Turn, count: int, *, replaces: bool) -> list[Turn]:
        """Let the reply of `turn` stand in place of the oldest `count` turns that models are sent;
        return the turns of the conversation that this changes: none if the reply says nothing.

        replaces: whether the summary before it is no longer needed.
        """
        self.count(turn)
        first = self.conversation.first_sent
        place = first + count - 1
        summarized = summed_up(self.conversation.turns[place], turn)
        if not summarized.summary_so_far:
            return []
        changed = self._put_turn(place, summarized)
        if not first or not replaces:
            return [changed]
        earlier = replace(self.conversation.turns[first - 1], summary_so_far="")
        return [changed, self._put_turn(first - 1, earlier)]

    def write_summary(self, text: str) -> Turn:
        """Let `text` stand in place of the latest summary, and return the turn that this changes;
        an empty text takes the summary away. Raises UsageError if there is no summary."""
        place = self.conversation.first_sent - 1
        if place < 0:
            raise UsageError("there is no summary", hint="/compact makes one")
        turn = replace(self.conversation.turns[place], summary_so_far=text.strip())
        return self._put_turn(place, turn)

    def _put_turn(self, place: int, turn: Turn) -> Turn:
        """Put a turn in the place of another one of the conversation, and return it."""
        turns = self.conversation.turns
        for name in ("last", "_answered", "_taken_back"):
            if getattr(self, name) is turns[place]:
                setattr(self, name, turn)
        turns = (*turns[:place], turn, *turns[place + 1 :])
        self.conversation = replace(self.conversation, turns=turns)
        return turn

    def _checked(self, profile: Profile) -> Profile:
        check_names(profile, self._clients)
        return profile

    def use(self, profile: Profile, *, settled: bool = True) -> None:
        """Use this profile from now on. Raises ProfileError, and changes nothing, if one of its
        model names leads to no model. settled: whether the candidates were already chosen among.
        """
        self.profile = self._checked(profile)
        self.settled = settled

    def change(self, overrides: Overrides, where: str) -> None:
        """Lay settings over the profile. where: the command that they come from.

        Raises ProfileError, and changes nothing, if the result is not a valid profile.
        """
        self.use(override(self.profile, overrides, where))

    def keep(self, turn: Turn) -> bool:
        """Add a turn that has ended, and return whether it has a reply. If the turn was to replace
        another one (see `take_back`) and has no reply, the other one stays.

        A try without a reply gives way to the next one that asks the same, unless it has proposals
        and the next one has none.
        """
        before, self.merging = self.merging, None
        tried, self._tried = self._tried, None
        if before is not None or tried is None or tried.user != turn.user:
            tried = None
        self.count(turn)
        if before is not None:
            turn = replace(merged(before, turn), stored_as=turn.stored_as)
        self.replaced, self._answered = (), None
        in_vain = not turn.reply and not mergeable(turn.proposals)
        if not turn.reply and self.put_back():
            self.replaced = (turn,) if before is not None or in_vain else _those(tried)
            attempt = tried if in_vain else turn
            if before is None and attempt is not None:
                self._answered, self.last = self.last, attempt
            return False
        if in_vain and tried is not None and mergeable(tried.proposals):
            self.replaced, self.last = (turn,), tried
            return False
        self.replaced = _those(self._taken_back, tried)
        self._taken_back = None
        self.last = turn
        if turn.reply:
            self._remember(turn)
        return bool(turn.reply)

    def count(self, turn: Turn) -> None:
        """Add what a turn took to what all have taken."""
        for charge in turn.ledger:
            self.spent[charge.model] = self.spent.get(charge.model, Usage()) + charge.usage

    def put_back(self) -> bool:
        """Restore the turn that was taken back; return whether there was one."""
        turn, self._taken_back = self._taken_back, None
        self._tried = None
        if turn is not None:
            self._remember(turn)
        return turn is not None

    def _remember(self, turn: Turn) -> None:
        turns = (*self.conversation.turns, turn)
        self.conversation = replace(self.conversation, turns=turns)
        self.last = turn

    def go_on(self, conversation: Conversation) -> None:
        """Continue with this conversation. What the turns so far took still counts.

        Its last turn may have no reply: it can be asked again, or its proposals merged.
        """
        turns = conversation.closed_turns()
        self.conversation = replace(conversation, turns=turns)
        self.last = last_turn(conversation.turns)
        self._answered = self._tried = None
        self.begun += 1

    def asked(self) -> tuple[Turn, ...]:
        """The turns of all messages of the user, also of a last one that has no reply."""
        turns, last = self.conversation.turns, self.last
        # An attempt to answer the last message anew is no other message.
        known = turns[-1:] == (last,) or self._answered is not None
        return turns if last is None or known else (*turns, last)

    def undo(self) -> Turn:
        """Forget the last message, and return its turn, which may have no reply. `replaced` then
        holds all turns that do not count any more. Raises UsageError if there is no message."""
        turns, last = self.conversation.turns, self.last
        if last is not None and turns[-1:] != (last,) and self._answered is None:
            self.last = turns[-1] if turns else None
            self.replaced = (last,)
            return last
        if not turns:
            raise UsageError("there is no turn to undo")
        attempt = last if self._answered is not None else None
        self.replaced = _those(turns[-1], attempt)
        self._answered = None
        return self._forget()

    def _forget(self) -> Turn:
        """Take the last turn out of the conversation, which must have one, and return it."""
        turns = self.conversation.turns
        self.conversation = replace(self.conversation, turns=turns[:-1])
        self.last = turns[-2] if len(turns) > 1 else None
        return turns[-1]

    def take_back(self) -> str:
        """Take out the last turn and return its prompt, to ask it again. Raises UsageError if
        nothing was asked yet."""
        if self.last is None:
            raise UsageError("there is no prompt to ask again")
        prompt = self.last.user
        self._tried = None if self.last.reply else self.last
        latest = self.conversation.turns[-1] if self.conversation.turns else None
        if latest is not None and (latest is self.last or latest is self._answered):
            self._taken_back = self._forget()
        return prompt


def _those(*turns: Turn | None) -> tuple[Turn, ...]:
    """The turns that there are."""
    return tuple(turn for turn in turns if turn is not None)
