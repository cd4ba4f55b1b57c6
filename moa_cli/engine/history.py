"""How much of a conversation a model is sent: as much of it as its context has room for.

If the earlier turns are too long, the oldest are left out. Only whole turns are left out, because a
reply without its prompt says little, and endpoints refuse the result of a tool without its call. A
system message stays. A summary stays too, because it stands for the turns that it sums up.

The room for earlier turns is the model's context without the answer, the prompt, and the references
that the model may read. The references do not exist yet when a turn begins, so room is reserved for
them: as much as references of the usual length need, but at most half of the room.

This holds for turns that `moa` keeps. Another program has to shorten the messages that it keeps
itself (`Conversation.before`). The error of the endpoint tells it that they are too long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from moa_cli.core.conversation import Conversation, Turn, messages_of_turn
from moa_cli.core.once_each import once_each
from moa_cli.core.tokens import estimate_tokens, extra_tokens, message_tokens, prompt_tokens
from moa_cli.profile import ModelSettings, Profile

# Tokens that are reserved for an answer, or a reference, of unlimited length.
USUAL_ANSWER = 1024
# Our estimates of token counts may be too low by this factor.
MARGIN = 1.1


@dataclass(frozen=True)
class HistoryUse:
    """How much of a model's room for earlier turns the earlier turns take.

    context: the model's context in tokens; None if it is neither known nor assumed: then all turns
    are sent. assumed: whether `context` is assumed, because it is not known. tokens: about how many
    tokens the earlier turns have. room: about how many tokens they may have. turns: the number of
    earlier turns, 0 if the profile sends none. left_out: how many of these the model has no room
    for.
    """

    model: str
    context: int | None
    assumed: bool
    tokens: int
    room: int
    turns: int
    left_out: int

    @property
    def share(self) -> float:
        """The part of the room that is taken; more than 1 if turns are left out. 0 where there is
        no limit."""
        if self.context is None:
            return 0.0
        return self.tokens / self.room if self.room > 0 else float(bool(self.tokens))


def usable_room(settings: ModelSettings, context: int) -> int:
    """About how many tokens a prompt may have beside the answer, by our estimates."""
    answer = settings.max_tokens or min(USUAL_ANSWER, context // 4)
    return int((context - answer) / MARGIN)


def without_oldest(conversation: Conversation) -> tuple[Conversation, int]:
    """The conversation without its oldest message and the replies and tool messages that followed
    it, and the number of messages left out; 0 if there is only the prompt. A system message stays.
    A summary stays as long as there is something else to leave out."""
    before = conversation.before
    first = int(bool(before) and before[0].role == "system")
    if not conversation.summary and len(before) > first:
        # Endpoints refuse the result of a tool without its call, and a call without its result.
        rest = before[first + 1 :]
        answers = takewhile(lambda message: message.role in ("assistant", "tool"), rest)
        dropped = 1 + sum(1 for _ in answers)
        return replace(conversation, before=before[:first] + before[first + dropped :]), dropped
    messages = len(conversation.messages())
    if conversation.earlier:
        shorter = without_turns(conversation, 1)
    elif conversation.summary:
        shorter = replace(conversation, turns=conversation.turns[-1:], before=before[:first])
    else:
        return conversation, 0
    return shorter, messages - len(shorter.messages())


def without_turns(conversation: Conversation, count: int) -> Conversation:
    """The conversation without the `count` oldest of the turns that a model would be sent."""
    if not count:
        return conversation
    turns, first = conversation.turns, conversation.first_sent
    return replace(conversation, turns=(*turns[:first], *turns[first + count :]))


def newest(conversation: Conversation, most: int | None) -> Conversation:
    """The conversation with at most `most` of its earlier turns; None keeps all of them.

    In messages of another program, each message of the user begins a turn.
    """
    if most is None:
        return conversation
    before = () if conversation.summary else conversation.before
    begins = [place for place, message in enumerate(before) if message.role == "user"]
    surplus = len(begins) + len(conversation.earlier) - most
    if surplus <= 0:
        return conversation
    if begins:
        led = 1 if before[0].role == "system" else 0
        cut = begins[surplus] if surplus < len(begins) else len(before)
        conversation = replace(conversation, before=(*before[:led], *before[cut:]))
    return without_turns(conversation, max(0, surplus - len(begins)))


@once_each
def _turn_tokens(turn: Turn) -> int:
    """About how many tokens a turn adds to a prompt."""
    return sum(map(message_tokens, messages_of_turn(turn)))


class History:
    """The earlier turns of one conversation, counted once for all models.

    profile: the mixture that is asked. conversation: the earlier turns, and the prompt as an open
    turn, if there is one.
    """

    def __init__(self, profile: Profile, conversation: Conversation) -> None:
        self._profile = profile
        self._conversation = newest(conversation, profile.max_history)
        self._tokens = [_turn_tokens(turn) for turn in self._conversation.earlier]
        # Tokens that are sent with the earlier turns: the prompt, a summary, and messages of
        # another program.
        bare = without_turns(self._conversation, len(self._tokens))
        self._beside = prompt_tokens(bare.messages())
        self._references = _references_by_model(profile)
        self._most_references = max(self._references.values(), default=0)

    def use(self, settings: ModelSettings, context: int | None, *, assumed: bool) -> HistoryUse:
        """How much of a model's room the earlier turns take. context: in tokens; None for no
        limit."""
        tokens = sum(self._tokens) if self._profile.multi_turn else 0
        count = len(self._tokens) if self._profile.multi_turn else 0
        if context is None:
            return HistoryUse(settings.model, None, False, tokens, 0, count, 0)
        room = usable_room(settings, context)
        room -= min(self._references.get(settings.model, self._most_references), room // 2)
        room -= self._beside + extra_tokens(settings.extra)
        room -= estimate_tokens(f"{settings.system or ''}\n{settings.instruction or ''}".strip())
        room = max(0, room)
        left, dropped = tokens, 0
        while left > room and dropped < count:
            left -= self._tokens[dropped]
            dropped += 1
        return HistoryUse(settings.model, context, assumed, tokens, room, count, dropped)

    def fitting(self, settings: ModelSettings, context: int | None, *, assumed: bool) -> int:
        """How many of the oldest turns fit a model's context together. At least one, even if it
        does not fit."""
        use = self.use(settings, context, assumed=assumed)
        if not use.left_out:
            return use.turns
        count, taken = 0, 0
        while taken + self._tokens[count] <= use.room:
            taken += self._tokens[count]
            count += 1
        return max(1, count)


def _references_by_model(profile: Profile) -> dict[str, int]:
    """About how many tokens of references one call of each model may be given, by model name."""
    found: dict[str, int] = {}
    references = 0
    for stage in profile.stages():
        proposes = not stage.purpose and not stage.writes
        for settings in stage.models:
            found[settings.model] = max(found.get(settings.model, 0), references)
        if proposes:
            references = sum(settings.max_tokens or USUAL_ANSWER for settings in stage.models)
    for settings in (*profile.aggregators(), *profile.judges()[1:]):
        found[settings.model] = max(found.get(settings.model, 0), references)
    return found


def model_settings(profile: Profile) -> dict[str, ModelSettings]:
    """The settings of each model of a profile, by model name. For a model that is asked in several
    places, they are the settings with the highest `max_tokens`."""
    found: dict[str, ModelSettings] = {}
    asked: Iterable[Sequence[ModelSettings]] = (*profile.all_layers(), profile.aggregators())
    for settings in (settings for stage in asked for settings in stage):
        known = found.get(settings.model)
        if known is None or (settings.max_tokens or 0) > (known.max_tokens or 0):
            found[settings.model] = settings
    return found


def history_uses(
    profile: Profile,
    conversation: Conversation,
    contexts: Mapping[str, int | None],
    assumed_context: int | None,
) -> list[HistoryUse]:
    """How much of the context of each model the earlier turns take, the tightest model first.

    contexts: the known contexts in tokens, by model name. assumed_context: the context to assume
    for a model whose context is not known.
    """
    history = History(profile, conversation)
    uses = []
    for model, settings in model_settings(profile).items():
        context, assumed = context_of(settings, contexts.get(model), assumed_context)
        uses.append(history.use(settings, context, assumed=assumed))
    return sorted(uses, key=lambda use: -use.share)


def context_of(
    settings: ModelSettings, known: int | None, assumed_context: int | None
) -> tuple[int | None, bool]:
    """The context of a model in tokens, and whether it is assumed; None if there is no limit."""
    context = settings.context or known
    return (assumed_context, assumed_context is not None) if context is None else (context, False)


def as_sent(
    profile: Profile,
    conversation: Conversation,
    contexts: Mapping[str, int | None],
    assumed_context: int | None,
) -> Callable[[ModelSettings], Conversation]:
    """A function that returns the conversation as a model is sent it: without the turns that the
    model has no room for.

    contexts: the known contexts in tokens, by model name. assumed_context: the context to assume
    for a model whose context is not known.
    """
    conversation = newest(conversation, profile.max_history)
    history = History(profile, conversation)

    def told(settings: ModelSettings) -> Conversation:
        known = contexts.get(settings.model)
        context, assumed = context_of(settings, known, assumed_context)
        use = history.use(settings, context, assumed=assumed)
        return without_turns(conversation, use.left_out)

    return told
