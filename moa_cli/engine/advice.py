"""Conversations with tool calls, rewritten for models without tools: the proposers of a mixture.

The aggregator acts, the proposers advise. A proposer is sent the same conversation with the calls
and their results as text. A note says that they are of another agent, because a model imitates what
it takes for its own, and would write calls as text. The note is also needed if tools were only
offered, because the system prompts of agents tell a model to call them. It stands at the very end,
so that everything before it stays byte-identical for the provider's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moa_cli.core.conversation import Conversation, Message, Part, Turn
from moa_cli.core.errors import ProfileError
from moa_cli.core.tools import ToolCall
from moa_cli.profile import Aggregator, ModelSettings, Profile
from moa_cli.profile.schema import place_of

# The fields of a request's body that offer tools, including the older ones for functions.
TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")
# The most characters of a tool result, or of the arguments of a call. Longer ones are cut in the
# middle.
_MOST = 4_000
_ADVISE = (
    "[The tool calls and results above are logs of another agent, which acts by itself. You have no"
    " tools, and cannot act. Give that agent your advice on the latest message as text: what to"
    " answer, or what to do next and why.]"
)
_ANSWER = (
    "[The tool calls and results above are logs. You have no tools now: answer the latest message"
    " in text.]"
)
# The notes for a conversation without tool calls so far.
_ADVISE_FIRST = (
    "[You have no tools, and cannot act: another agent calls them by itself. Answer the latest"
    " message as text, or tell that agent what to do next and why.]"
)
_ANSWER_FIRST = "[You have no tools now: answer the latest message in text.]"
_BEGUN = "[The answer begins with these words:]"


def offers_tools(settings: ModelSettings) -> bool:
    """Whether a model is offered tools."""
    return bool(settings.extra.get("tools"))


def holds_tools(conversation: Conversation) -> bool:
    """Whether a conversation holds tool calls, or their results."""
    return any(turn.tool_calls for turn in conversation.turns) or any(
        message.role == "tool" or message.tool_calls
        for messages in (conversation.before, conversation.after)
        for message in messages
    )


def has_results(messages: Sequence[Message]) -> bool:
    """Whether there are tool results among the messages."""
    return any(message.role == "tool" for message in messages)


def check_tools(profile: Profile) -> None:
    """Raise ProfileError if a profile that refuses tools is to offer some."""
    if profile.tools == "refuse" and offers_tools(profile.aggregator):
        raise ProfileError(
            f'the profile `{profile.name}` takes no tools: it says `tools = "refuse"`',
            place=place_of(profile.origins, ("tools",)),
            path=("tools",),
            hint='set `tools` to "aggregator", or to "ignore" for replies without tools',
        )


def aggregators(profile: Profile) -> tuple[Aggregator, ...]:
    """The aggregator and its fallbacks. They are offered no tools if the profile ignores tools."""
    tried = profile.aggregators()
    extra = profile.aggregator.extra
    if profile.tools != "ignore" or not any(name in extra for name in TOOL_FIELDS):
        return tried
    left = {name: value for name, value in extra.items() if name not in TOOL_FIELDS}
    return tuple(replace(settings, extra=left) for settings in tried)


def view_for(
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    *,
    calls_tools: bool | None = None,
) -> Conversation:
    """The conversation as a model is sent it.

    calls_tools: whether the model can call tools, None if that is not known.
    """
    offered = offers_tools(profile.aggregator)
    if not isinstance(settings, Aggregator):
        return _advised(conversation, offered=offered)
    unable = calls_tools is False and not offers_tools(settings)
    if (profile.tools == "ignore" or unable) and holds_tools(conversation):
        return _as_text(conversation, _ANSWER)
    if profile.tools == "ignore" and offered:
        return _told(conversation, _ANSWER_FIRST, begun=begins_reply(conversation.after))
    return conversation


def begins_reply(messages: Sequence[Message]) -> bool:
    """Whether the last message is the beginning of the reply."""
    return bool(messages) and messages[-1].role == "assistant" and not messages[-1].tool_calls


def _advised(conversation: Conversation, *, offered: bool) -> Conversation:
    """The conversation for a proposer: without tools, and with the user's words at its end.

    offered: whether the aggregator is offered tools.
    """
    begun = begins_reply(conversation.after)
    if begun:
        *after, beginning = conversation.after
        conversation = replace(conversation, after=tuple(after))
    if holds_tools(conversation):
        conversation = _as_text(conversation, _ADVISE)
    elif offered:
        conversation = _told(conversation, _ADVISE_FIRST)
    if begun:
        conversation = _told(conversation, f"{_BEGUN}\n{beginning.content}")
    return conversation


def _as_text(conversation: Conversation, note: str) -> Conversation:
    """The conversation with all tool calls and results as text, and the note at its end.

    A call becomes a text of the assistant, and a result one of the user, so that the two roles
    alternate as before. Several results in a row become one message.
    """
    messages = conversation.messages()
    place = len(messages) - 1 - len(conversation.after)
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    found: list[Message] = []
    rewritten: list[bool] = []
    prompt = 0
    for number, message in enumerate(messages):
        text = _text_of(message, names)
        new = text is not message
        if found and found[-1].role == text.role != "system" and (new or rewritten[-1]):
            found[-1] = _joined(found[-1], text)
            rewritten[-1] = True
        else:
            found.append(text)
            rewritten.append(new)
        if number == place:
            prompt = len(found) - 1
    asked = found[prompt]
    turn = Turn(asked.content, parts=asked.parts, speaker=asked.name)
    view = Conversation((turn,), tuple(found[:prompt]), tuple(found[prompt + 1 :]))
    return _told(view, note, begun=begins_reply(conversation.after))


def _text_of(message: Message, names: dict[str, str]) -> Message:
    """A message with its tool calls, or its tool result, as text; the same one if it has none."""
    if message.role == "tool":
        name = names.get(message.tool_call_id) or message.name
        head = f"[result of {name}]" if name else "[result of a tool]"
        if message.parts:
            parts = (Part("text", head), *map(_shortened, message.parts))
            return Message.of_parts("user", parts)
        return Message("user", f"{head}\n{_cut(message.content)}")
    if not message.tool_calls:
        return message
    calls = "\n".join(map(_written, message.tool_calls))
    text = f"{message.content}\n\n{calls}" if message.content.strip() else calls
    return Message(message.role, text)


def _written(call: ToolCall) -> str:
    return f"[called tool: {call.name}({_cut(call.arguments)})]"


def _shortened(part: Part) -> Part:
    return replace(part, text=_cut(part.text))


def _cut(text: str) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= _MOST:
        return text
    half = _MOST // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"


def _joined(first: Message, second: Message) -> Message:
    """Two messages of one role as one."""
    if not first.parts and not second.parts:
        return replace(first, content=f"{first.content}\n\n{second.content}")
    parts = [
        part
        for message in (first, second)
        for part in message.parts or (Part("text", message.content),)
    ]
    return Message.of_parts(first.role, parts, first.name)


def _told(conversation: Conversation, note: str, *, begun: bool = False) -> Conversation:
    """The conversation with a note at its end: in the last message if it is the user's, else as a
    separate message. begun: whether the last message is the beginning of the reply; then it stays
    last."""
    said, after = Message("user", note), list(conversation.after)
    beginning = [after.pop()] if begun else []
    if after:
        *before, last = after
        ending = (_joined(last, said),) if last.role == "user" else (last, said)
        return replace(conversation, after=(*before, *ending, *beginning))
    *earlier, turn = conversation.turns
    asked = _joined(Message("user", turn.user, turn.parts, name=turn.speaker), said)
    turn = Turn(asked.content, parts=asked.parts, speaker=turn.speaker)
    return replace(conversation, turns=(*earlier, turn), after=tuple(beginning))
