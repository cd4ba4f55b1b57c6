"""ChatGPT's data export: a tree of messages for each conversation.

`mapping` holds nodes by id, each with its `parent`, its `children` and perhaps a `message`;
`current_node` is the last one of the branch that the user saw last. Editing a message or asking
again begins another branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moa_cli.core.text import fenced
from moa_cli.store.incoming.bounds import seconds_of
from moa_cli.store.incoming.coming import (
    IncomingConversation,
    TurnBuilder,
    list_in,
    table_in,
    text_in,
)

PROFILE = "chatgpt"
# A reference to a search result or the like, which means nothing outside of ChatGPT.
_CITATION = re.compile("\ue200[^\ue200\ue201]{0,10000}\ue201")
_FINISH = {"stop": "stop", "max_tokens": "length"}
_PICTURES = ("image_asset_pointer",)
_SOUNDS = ("audio_asset_pointer", "real_time_user_audio_video_asset_pointer")
_TOOL_KINDS = ("execution_output", "system_error", "computer_output")


def conversation(values: Mapping[str, Any], where: str) -> IncomingConversation:
    """The branch of the conversation that was seen last. Raises ValueError."""
    nodes = values["mapping"]
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise ValueError("mapping is not a table of messages")
    messages = TurnBuilder(PROFILE)
    path = _path(nodes, values.get("current_node"))
    model = text_in(values, "default_model_slug") or None
    for identity in path:
        if message := table_in(nodes[identity], "message"):
            _add(messages, message, model)
    if branches := _others(nodes, set(path)):
        messages.left["branch that an edit replaced"] = branches
    return messages.coming(
        where,
        text_in(values, "conversation_id") or text_in(values, "id") or None,
        title=text_in(values, "title"),
        created=seconds_of(values.get("create_time")),
        updated=seconds_of(values.get("update_time")),
    )


def _path(nodes: Mapping[str, Any], current: object) -> list[str]:
    """The ids of the nodes from the root to `current`."""
    if not isinstance(current, str) or current not in nodes:
        # The last one that nothing follows, as the file has them in the order of their times.
        ends = [identity for identity, node in nodes.items() if not list_in(node, "children")]
        current = ends[-1] if ends else None
        if current is None and nodes:
            raise ValueError("its messages form a loop")
    path: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current in nodes:
        if current in seen:
            raise ValueError("its messages form a loop")
        seen.add(current)
        path.append(current)
        current = nodes[current].get("parent")
    return path[::-1]


def _others(nodes: Mapping[str, Any], path: set[str]) -> int:
    """How many branches are not taken: ends off the path at which somebody says something."""
    ends = (
        node
        for identity, node in nodes.items()
        if identity not in path and not list_in(node, "children")
    )
    return sum(
        text_in(table_in(table_in(node, "message"), "author"), "role") in ("user", "assistant")
        for node in ends
    )


def _add(messages: TurnBuilder, message: Mapping[str, Any], model: str | None) -> None:
    role = text_in(table_in(message, "author"), "role")
    content, metadata = table_in(message, "content"), table_in(message, "metadata")
    kind = text_in(content, "content_type") or "text"
    if kind in ("user_editable_context", "model_editable_context"):
        if instructions := _instructions(content):
            messages.system(instructions)
        return
    if kind in ("thoughts", "reasoning_recap"):
        if kind == "thoughts":
            messages.assistant("", reasoning=_thoughts(content))
        return
    if role == "tool" or kind in _TOOL_KINDS or kind.startswith("tether_"):
        messages.left["tool result"] += 1
        _text(messages, content)
        return
    if role == "assistant" and text_in(message, "recipient") not in ("", "all"):
        messages.left["tool call"] += 1
        return
    text = _text(messages, content)
    if role == "system":
        if text.strip():
            messages.system(text)
    elif role == "user":
        attachments = [item for item in list_in(metadata, "attachments") if isinstance(item, dict)]
        # A picture among them is counted where it stands in the text.
        messages.left["file"] += sum(not _is_picture(item) for item in attachments)
        more = bool(attachments) or any(
            isinstance(part, dict) for part in list_in(content, "parts")
        )
        messages.user(text, seconds_of(message.get("create_time")), more=more)
    elif role == "assistant":
        details = table_in(metadata, "finish_details")
        messages.assistant(
            text,
            model=text_in(metadata, "model_slug") or model,
            finish=_FINISH.get(text_in(details, "type")),
            stopped=text_in(details, "type") == "interrupted",
        )
    else:
        messages.left["message of an unknown role"] += 1


def _text(messages: TurnBuilder, content: Mapping[str, Any]) -> str:
    """The text of a message; what else there is in it is counted."""
    if text_in(content, "content_type") == "code":
        language = text_in(content, "language")
        return fenced(text_in(content, "text"), language if language != "unknown" else "")
    pieces = []
    for part in list_in(content, "parts"):
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, dict):
            kind = text_in(part, "content_type")
            if text := text_in(part, "text"):
                pieces.append(text)
            elif kind in _PICTURES:
                messages.left["image"] += 1
            elif kind in _SOUNDS:
                messages.left["recording"] += 1
            else:
                messages.left["part of another kind"] += 1
    if not pieces and (text := text_in(content, "text") or text_in(content, "result")):
        pieces.append(text)
    return _CITATION.sub("", "\n\n".join(piece for piece in pieces if piece.strip()))


def _instructions(content: Mapping[str, Any]) -> str:
    """What the user had told ChatGPT of themselves, and of the answers that they want."""
    wanted = (
        text_in(content, key) for key in ("user_profile", "user_instructions", "model_set_context")
    )
    return "\n\n".join(text for text in wanted if text.strip())


def _thoughts(content: Mapping[str, Any]) -> str:
    pieces = []
    for thought in list_in(content, "thoughts"):
        if isinstance(thought, dict):
            said = (text_in(thought, "summary"), text_in(thought, "content"))
            pieces.append("\n".join(text for text in said if text.strip()))
    return "\n\n".join(pieces)


def _is_picture(attachment: Mapping[str, Any]) -> bool:
    kind = text_in(attachment, "mime_type") or text_in(attachment, "mimeType")
    return kind.startswith("image/")
