"""Reads ChatGPT's data export, which holds a tree of messages for each conversation.

`mapping` holds nodes by id. Each node has a `parent`, `children` and perhaps a `message`.
`current_node` is the end of the branch that the user saw last. Each edited message and each
repeated prompt begins another branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moa_cli.core.text import fenced
from moa_cli.store.incoming.conversation import (
    IncomingConversation,
    TurnBuilder,
    list_in,
    seconds_of,
    table_in,
    text_in,
)

PROFILE = "chatgpt"
# A reference, such as to a search result, that means nothing outside ChatGPT.
_CITATION = re.compile("\ue200[^\ue200\ue201]{0,10000}\ue201")
_FINISH = {"stop": "stop", "max_tokens": "length"}
_PICTURES = ("image_asset_pointer",)
_SOUNDS = ("audio_asset_pointer", "real_time_user_audio_video_asset_pointer")
_TOOL_KINDS = ("execution_output", "system_error", "computer_output")


def conversation(values: Mapping[str, Any], where: str) -> IncomingConversation:
    """The branch of the conversation that the user saw last.

    Raises:
        ValueError: The conversation is broken.
    """
    nodes = values["mapping"]
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise ValueError("mapping is not a table of messages")
    builder = TurnBuilder(PROFILE)
    path = _path(nodes, values.get("current_node"))
    model = text_in(values, "default_model_slug") or None
    for identity in path:
        if message := table_in(nodes[identity], "message"):
            _add(builder, message, model)
    if branches := _others(nodes, set(path)):
        builder.left["branch that an edit replaced"] = branches
    return builder.conversation(
        where,
        text_in(values, "conversation_id") or text_in(values, "id") or None,
        title=text_in(values, "title"),
        created=seconds_of(values.get("create_time")),
        updated=seconds_of(values.get("update_time")),
    )


def _path(nodes: Mapping[str, Any], current: object) -> list[str]:
    """The ids of the nodes from the root to `current`."""
    if not isinstance(current, str) or current not in nodes:
        # Nodes are in the order of their times: take the last one without children.
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
    """How many branches are left out: ends off the path that hold a message of either side."""
    ends = (
        node
        for identity, node in nodes.items()
        if identity not in path and not list_in(node, "children")
    )
    return sum(
        text_in(table_in(table_in(node, "message"), "author"), "role") in ("user", "assistant")
        for node in ends
    )


def _add(builder: TurnBuilder, message: Mapping[str, Any], model: str | None) -> None:
    role = text_in(table_in(message, "author"), "role")
    content, metadata = table_in(message, "content"), table_in(message, "metadata")
    kind = text_in(content, "content_type") or "text"
    if kind in ("user_editable_context", "model_editable_context"):
        if instructions := _instructions(content):
            builder.system(instructions)
        return
    if kind in ("thoughts", "reasoning_recap"):
        if kind == "thoughts":
            builder.assistant("", reasoning=_thoughts(content))
        return
    if role == "tool" or kind in _TOOL_KINDS or kind.startswith("tether_"):
        builder.left["tool result"] += 1
        _text(builder, content)
        return
    if role == "assistant" and text_in(message, "recipient") not in ("", "all"):
        builder.left["tool call"] += 1
        return
    text = _text(builder, content)
    if role == "system":
        if text.strip():
            builder.system(text)
    elif role == "user":
        attachments = [item for item in list_in(metadata, "attachments") if isinstance(item, dict)]
        # Pictures are counted where they stand in the text.
        builder.left["file"] += sum(not _is_picture(item) for item in attachments)
        more = bool(attachments) or any(
            isinstance(part, dict) for part in list_in(content, "parts")
        )
        builder.user(text, seconds_of(message.get("create_time")), more=more)
    elif role == "assistant":
        details = table_in(metadata, "finish_details")
        builder.assistant(
            text,
            model=text_in(metadata, "model_slug") or model,
            finish=_FINISH.get(text_in(details, "type")),
            stopped=text_in(details, "type") == "interrupted",
        )
    else:
        builder.left["message of an unknown role"] += 1


def _text(builder: TurnBuilder, content: Mapping[str, Any]) -> str:
    """The text of a message; its other parts are counted."""
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
                builder.left["image"] += 1
            elif kind in _SOUNDS:
                builder.left["recording"] += 1
            else:
                builder.left["part of another kind"] += 1
    if not pieces and (text := text_in(content, "text") or text_in(content, "result")):
        pieces.append(text)
    return _CITATION.sub("", "\n\n".join(piece for piece in pieces if piece.strip()))


def _instructions(content: Mapping[str, Any]) -> str:
    """The user's custom instructions: about themselves, and about the answers that they want."""
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
