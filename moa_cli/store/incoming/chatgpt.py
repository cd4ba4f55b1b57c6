"""Reads ChatGPT's data export, which has a tree of messages for each conversation.

`mapping` holds nodes by id. Each node has a `parent`, `children` and perhaps a `message`.
`current_node` is the end of the branch that the user saw last. Each edited message and each
repeated prompt begins another branch.
"""

from __future__ import annotations

import re

from moa_cli.core.text import fenced
from moa_cli.store.incoming.conversation import IncomingConversation, Table, TurnBuilder

# A reference, such as to a search result, that means nothing outside ChatGPT.
_CITATION = re.compile("\ue200[^\ue200\ue201]{0,10000}\ue201")
_FINISH = {"stop": "stop", "max_tokens": "length"}
_COUNTED = {
    "image_asset_pointer": "image",
    "audio_asset_pointer": "recording",
    "real_time_user_audio_video_asset_pointer": "recording",
}
_TOOL_KINDS = ("execution_output", "system_error", "computer_output")


def conversation(values: Table) -> IncomingConversation:
    """The branch of the conversation that the user saw last. Raises ValueError if it is broken."""
    given = values["mapping"]
    if not isinstance(given, dict) or not all(isinstance(node, dict) for node in given.values()):
        raise ValueError("mapping is not a table of messages")
    nodes = {identity: Table(node) for identity, node in given.items()}
    builder = TurnBuilder("chatgpt")
    ends = [node for node in nodes.values() if not node.list("children")]
    last = nodes.get(values.text("current_node"))
    if last is None and nodes:
        if not ends:
            raise ValueError("its messages form a loop")
        # Nodes are in the order of their times, so the last one is the latest.
        last = ends[-1]
    path = [] if last is None else last.path(lambda node: nodes.get(node.text("parent")))
    model = values.text("default_model_slug") or None
    for node in path:
        if message := node.table("message"):
            _add(builder, message, model)
    taken = set(map(id, path))
    # A branch counts if it ends with a message of the user or the assistant.
    builder.left["branch that an edit replaced"] = sum(
        id(node) not in taken and _role(node.table("message")) in ("user", "assistant")
        for node in ends
    )
    identity = values.text("conversation_id") or values.text("id")
    times = values.get("create_time"), values.get("update_time")
    return builder.conversation(identity, values.text("title"), *times)


def _role(message: Table) -> str:
    return message.table("author").text("role")


def _add(builder: TurnBuilder, message: Table, model: str | None) -> None:
    role = _role(message)
    content, metadata = message.table("content"), message.table("metadata")
    kind = content.text("content_type") or "text"
    if kind in ("user_editable_context", "model_editable_context"):
        # The custom instructions of the user: about the user, and about the wanted answers.
        keys = ("user_profile", "user_instructions", "model_set_context")
        if instructions := [content.text(key) for key in keys if content.text(key).strip()]:
            builder.system("\n\n".join(instructions))
        return
    if kind == "thoughts":
        builder.assistant("", reasoning=_thoughts(content))
    if kind in ("thoughts", "reasoning_recap"):
        return
    if role == "tool" or kind in _TOOL_KINDS or kind.startswith("tether_"):
        builder.left["tool result"] += 1
        _text(builder, content)
        return
    if role == "assistant" and message.text("recipient") not in ("", "all"):
        builder.left["tool call"] += 1
        return
    text = _text(builder, content)
    if role == "system":
        if text.strip():
            builder.system(text)
    elif role == "user":
        attachments = metadata.tables("attachments")
        kinds = [item.text("mime_type") or item.text("mimeType") for item in attachments]
        # Pictures are not counted here, but by `_text`, because they are also parts of the message.
        builder.left["file"] += sum(not kind.startswith("image/") for kind in kinds)
        more = bool(attachments or content.tables("parts"))
        builder.user(text, message.get("create_time"), more=more)
    elif role == "assistant":
        details = metadata.table("finish_details")
        builder.assistant(
            text,
            model=metadata.text("model_slug") or model,
            finish=_FINISH.get(details.text("type")),
            stopped=details.text("type") == "interrupted",
        )
    else:
        builder.left["message of an unknown role"] += 1


def _text(builder: TurnBuilder, content: Table) -> str:
    """The text of a message; its other parts are counted."""
    if content.text("content_type") == "code":
        language = content.text("language")
        return fenced(content.text("text"), language if language != "unknown" else "")
    pieces = []
    for part in content.list("parts"):
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, dict):
            if text := Table(part).text("text"):
                pieces.append(text)
            else:
                kind = Table(part).text("content_type")
                builder.left[_COUNTED.get(kind, "part of another kind")] += 1
    if not pieces and (text := content.text("text") or content.text("result")):
        pieces.append(text)
    return _CITATION.sub("", "\n\n".join(piece for piece in pieces if piece.strip()))


def _thoughts(content: Table) -> str:
    pieces = []
    for thought in content.tables("thoughts"):
        said = (thought.text("summary"), thought.text("content"))
        pieces.append("\n".join(text for text in said if text.strip()))
    return "\n\n".join(pieces)
