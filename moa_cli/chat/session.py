"""The state of a chat: its conversation, its mixture and its spending.

This module does not depend on a terminal.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from moa_cli.core.conversation import Conversation, Part, Turn, Usage
from moa_cli.core.endpoints import Clients, ModelInfo
from moa_cli.core.errors import UsageError
from moa_cli.core.events import Event
from moa_cli.core.strategy import Strategy
from moa_cli.engine import Control, Limits, check_names, run_report, run_turn
from moa_cli.engine.history import HistoryUse, history_uses
from moa_cli.engine.merging import answered_before, last_turn, mergeable, merged, reported
from moa_cli.engine.summary import sum_up, summed_up
from moa_cli.profile import Overrides, Profile
from moa_cli.profile.layering import override

# This many of the newest turns are not summed up, because the next prompt is often about them.
_NOT_SUMMED_UP = 1


class Session:
    """A conversation, and the mixture that answers in it.

    conversation: the turns so far that have a reply. last: the latest turn, even if it failed.
    settled: whether a choice among the profile's candidates was made; see `use`. replaced: the
    turns that the last call of `keep` has replaced. begun: how many conversations were begun or
    continued here. merging: the turn from whose proposals a new reply is being written. spent: the
    usage of all turns by model name, including turns that were taken back.
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
        self.replaced: tuple[Turn, ...] = ()
        self.spent: dict[str, Usage] = {}
        self._taken_back: Turn | None = None
        # An earlier attempt to answer the present prompt, which gave no reply.
        self._tried: Turn | None = None
        # The last turn with a reply, if `last` is a failed attempt to answer its prompt again.
        self._answered: Turn | None = None
        self.merging: Turn | None = None
        self.go_on(conversation or Conversation())
        # The cached result of `history_uses`, and the values that it was computed from.
        self._uses: Sequence[HistoryUse] = ()
        self._uses_of: tuple[Profile, Conversation, Mapping[str, int | None]] | None = None
        self._clients = clients
        self._limits = limits

    def models_text(self) -> str:
        """The models of each round, one line for each, and how the reply is made."""
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
        """The facts about the profile's models that are known without a request, by name."""
        return {model: self._clients.known(model) for model in self.profile.models()}

    @property
    def assumed_context(self) -> int | None:
        """See `Limits`."""
        return self._limits.assumed_context

    def history_uses(self) -> Sequence[HistoryUse]:
        """How much of each model's context the conversation takes. The model with the least room
        comes first.

        The result is cached, because this is called at each key that the user presses.
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
        """Begin a turn. Returns its events. Pass the finished turn to `keep`.

        aggregator: writes only this reply, in place of the profile's. parts: all parts of the
        prompt, if not all of them are text. Raises ProfileError if `aggregator` is not the name of
        a model.
        """
        profile = self.profile
        if aggregator:
            other = Overrides(aggregator=aggregator)
            profile = self._checked(override(profile, other, "/retry"))
        last = self.last if self._answered is None else None
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
        """Begin a turn that makes a new reply from the last proposals. No proposer is asked.

        strategy, aggregator: for this reply alone; None takes the profile's. Returns the last
        prompt, and the events of the turn. Raises UsageError if there are no proposals,
        ProfileError like `ask`.
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

    @property
    def asks_again(self) -> bool:
        """Whether the turn that runs is to replace a reply of the conversation."""
        return self._taken_back is not None

    def report(self, control: Control | None = None) -> AsyncGenerator[Event, None]:
        """Begin a report on the last proposals. Returns its events. Pass the resulting turn to
        `keep_report`. Raises UsageError if there are fewer than two proposals."""
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
        """Add a report, and its usage, to the last turn. turn: the turn that made the report."""
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
        """Begin to sum up the turns before the newest one. Returns the number of turns in the
        summary, and its events. Pass the resulting turn to `keep_summary`.

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
        """Use the reply of `turn` as the summary that replaces the oldest `count` turns which
        models are sent. Returns the turns of the conversation that this changes; none if the reply
        is empty.

        replaces: whether the earlier summary is removed.
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
        """Replace the latest summary by `text`; an empty text removes the summary. Returns the turn
        that this changes. Raises UsageError if there is no summary."""
        place = self.conversation.first_sent - 1
        if place < 0:
            raise UsageError("there is no summary", hint="/compact makes one")
        turn = replace(self.conversation.turns[place], summary_so_far=text.strip())
        return self._put_turn(place, turn)

    def _put_turn(self, place: int, turn: Turn) -> Turn:
        """Replace the turn at that place of the conversation. Returns the new turn."""
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
        """Use this profile from now on. settled: whether a choice among its candidates was already
        made. Raises ProfileError, and changes nothing, if one of its model names leads to no model.
        """
        self.profile = self._checked(profile)
        self.settled = settled

    def change(self, overrides: Overrides, where: str) -> None:
        """Override settings of the profile. where: the command that they come from.

        Raises ProfileError, and changes nothing, if the result is not a valid profile.
        """
        self.use(override(self.profile, overrides, where))

    def keep(self, turn: Turn) -> bool:
        """Add a turn that has ended. Returns whether it has a reply. If the turn was to replace
        another one (see `take_back`) and has no reply, the other one stays.

        An attempt without a reply is replaced by the next attempt with the same prompt, unless the
        earlier one has proposals and the next one has neither a reply nor proposals. A failed
        attempt to replace a reply is replaced by the next message.
        """
        before, self.merging = self.merging, None
        tried, self._tried = self._tried, None
        if before is not None or tried is None or tried.user != turn.user:
            tried = None
        new_message = self._taken_back is None
        passed = self.last if new_message and self._answered is not None else None
        self.count(turn)
        if before is not None:
            turn = replace(merged(before, turn), stored_as=turn.stored_as)
        self.replaced, self._answered = (), None
        in_vain = not turn.reply and not mergeable(turn.proposals)
        if not turn.reply and self.put_back():
            if in_vain or (before is not None and before.reply):
                self.replaced, attempt = (turn,), tried
            else:
                self.replaced, attempt = _those(tried), turn
            if attempt is not None:
                self._answered, self.last = self.last, attempt
            return False
        if in_vain and tried is not None and mergeable(tried.proposals):
            self.replaced, self.last = (turn,), tried
            return False
        self.replaced = _those(self._taken_back, tried, passed)
        self._taken_back = None
        self.last = turn
        if turn.reply:
            self._remember(turn)
        return bool(turn.reply)

    def count(self, turn: Turn) -> None:
        """Add the usage of a turn to the sums of all turns."""
        for charge in turn.ledger:
            self.spent[charge.model] = self.spent.get(charge.model, Usage()) + charge.usage

    def put_back(self) -> bool:
        """Restore the turn that was taken back. Returns whether there was one."""
        turn, self._taken_back = self._taken_back, None
        tried, self._tried = self._tried, None
        if turn is not None:
            self._remember(turn)
            self.last = tried or turn
        return turn is not None

    def _remember(self, turn: Turn) -> None:
        turns = (*self.conversation.turns, turn)
        self.conversation = replace(self.conversation, turns=turns)
        self.last = turn

    def go_on(self, conversation: Conversation) -> None:
        """Continue with this conversation. The spending of earlier turns still counts.

        If its last turn has no reply, its prompt can be asked again, or its proposals merged.
        """
        turns = conversation.closed_turns()
        self.conversation = replace(conversation, turns=turns)
        self.last = last_turn(conversation.turns)
        self._answered = answered_before(conversation.turns, self.last)
        self._tried = None
        self.begun += 1

    def asked(self) -> tuple[Turn, ...]:
        """The turns of all messages of the user, including a last one without a reply."""
        turns, last = self.conversation.turns, self.last
        # An attempt to answer the last message again is not another message.
        known = turns[-1:] == (last,) or self._answered is not None
        return turns if last is None or known else (*turns, last)

    def undo(self) -> Turn:
        """Forget the last message. Returns its turn, which may have no reply. After that,
        `replaced` has all turns that no longer count. Raises UsageError if there is no message."""
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
        """Remove the last turn from the conversation, which must have one. Returns the turn."""
        turns = self.conversation.turns
        self.conversation = replace(self.conversation, turns=turns[:-1])
        self.last = turns[-2] if len(turns) > 1 else None
        return turns[-1]

    def take_back(self) -> str:
        """Take back the last turn, so that its prompt can be asked again. Returns the prompt.
        Raises UsageError if there is no turn yet."""
        if self.last is None:
            raise UsageError("there is no prompt to ask again")
        prompt = self.last.user
        self._tried = None if self.last.reply else self.last
        latest = self.conversation.turns[-1] if self.conversation.turns else None
        if latest is not None and (latest is self.last or latest is self._answered):
            self._taken_back = self._forget()
        return prompt


def _those(*turns: Turn | None) -> tuple[Turn, ...]:
    """The given turns without None."""
    return tuple(turn for turn in turns if turn is not None)
