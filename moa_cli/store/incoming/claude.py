"""Reads Claude's data export, which holds a list of messages for each conversation.

In newer exports each message names the one that it follows, which tells edited messages apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from moa_cli.core.text import fenced
from moa_cli.store.incoming.conversation import (
    IncomingConversation,
    TurnBuilder,
    list_in,
    seconds_of,
    text_in,
)

PROFILE = "claude"
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".heic")
_COUNTED = {"tool_use": "tool call", "tool_result": "tool result", "image": "image"}
# Parts that hold no content.
_SILENT = ("token_budget", "flag")


def conversation(values: Mapping[str, Any], where: str) -> IncomingConversation:
    """The branch of the conversation that was written last.

    Raises:
        ValueError: The conversation is broken.
    """
    given = values["chat_messages"]
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise ValueError("chat_messages is not a list of messages")
    builder = TurnBuilder(PROFILE)
    path = _path(given, text_in(values, "current_leaf_message_uuid"))
    model = text_in(values, "model") or None
    for message in path:
        _add(builder, message, model)
    if branches := _others(given, path):
        builder.left["branch that an edit replaced"] = branches
    return builder.conversation(
        where,
        text_in(values, "uuid") or None,
        title=text_in(values, "name"),
        created=seconds_of(values.get("created_at")),
        updated=seconds_of(values.get("updated_at")),
    )


def _path(given: Sequence[dict[str, Any]], leaf: str) -> list[dict[str, Any]]:
    """The messages from the first to the last, without those that an edit replaced."""
    by_id = {text_in(message, "uuid"): message for message in given if text_in(message, "uuid")}
    if not any(text_in(message, "parent_message_uuid") in by_id for message in given):
        return list(given)
    current = by_id.get(leaf) or given[-1]
    path: list[dict[str, Any]] = []
    seen: set[str] = set()
    while True:
        identity = text_in(current, "uuid")
        if identity in seen:
            raise ValueError("its messages form a loop")
        seen.add(identity)
        path.append(current)
        parent = by_id.get(text_in(current, "parent_message_uuid"))
        if parent is None:
            return path[::-1]
        current = parent


def _others(given: Sequence[Mapping[str, Any]], path: Sequence[Mapping[str, Any]]) -> int:
    """How many branches are left out."""
    taken = {text_in(message, "uuid") for message in path}
    parents = {text_in(message, "parent_message_uuid") for message in given}
    return len({text_in(message, "uuid") for message in given} - taken - parents)


def _add(builder: TurnBuilder, message: Mapping[str, Any], model: str | None) -> None:
    said, reasoning = [], []
    for part in list_in(message, "content"):
        if not isinstance(part, dict):
            continue
        kind = text_in(part, "type")
        if kind == "thinking":
            reasoning.append(text_in(part, "thinking"))
        elif kind in _COUNTED:
            builder.left[_COUNTED[kind]] += 1
        elif text := text_in(part, "text"):
            said.append(text)
        elif kind not in (*_SILENT, "text"):
            builder.left["part of another kind"] += 1
    # `text` only repeats the parts, with notices in place of those that are not text.
    text = "\n\n".join(said) if said or list_in(message, "content") else text_in(message, "text")
    sender = text_in(message, "sender")
    if sender == "assistant":
        builder.assistant(text, model=model, reasoning="\n\n".join(reasoning))
    elif sender in ("human", "user"):
        texts = [text] if text.strip() else []
        prompt = "\n\n".join([*texts, *_files(builder, message)])
        more = bool(list_in(message, "attachments") or list_in(message, "files"))
        builder.user(prompt, seconds_of(message.get("created_at")), more=more)
    else:
        builder.left["message of an unknown role"] += 1


def _files(builder: TurnBuilder, message: Mapping[str, Any]) -> list[str]:
    """The texts of attached files, each in a fence; files without a text are counted."""
    texts, names = [], set()
    for attachment in list_in(message, "attachments"):
        if isinstance(attachment, dict):
            name, text = text_in(attachment, "file_name"), text_in(attachment, "extracted_content")
            if text:
                texts.append(fenced(text, name))
                names.add(name)
            else:
                _count(builder, name)
    for file in list_in(message, "files"):
        if isinstance(file, dict) and text_in(file, "file_name") not in names:
            _count(builder, text_in(file, "file_name"))
    return texts


def _count(builder: TurnBuilder, name: str) -> None:
    picture = PurePosixPath(name).suffix.lower() in _PICTURES
    builder.left["image" if picture else "file"] += 1
