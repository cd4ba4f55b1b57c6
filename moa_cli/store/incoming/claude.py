"""Reads Claude's data export, which has a list of messages for each conversation.

In newer exports, each message names the message that it follows. This shows which messages an edit
has replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from moa_cli.core.text import fenced
from moa_cli.store.incoming.conversation import IncomingConversation, Table, TurnBuilder

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".heic")
_COUNTED = {"tool_use": "tool call", "tool_result": "tool result", "image": "image"}
# Types of parts without content, which are left out silently.
_SILENT = ("token_budget", "flag")


def conversation(values: Table) -> IncomingConversation:
    """The branch of the conversation that was written last. Raises ValueError if it is broken."""
    given = values.tables("chat_messages")
    if values["chat_messages"] != given:
        raise ValueError("chat_messages is not a list of messages")
    builder = TurnBuilder("claude")
    path = _path(given, values.text("current_leaf_message_uuid"))
    model = values.text("model") or None
    for message in path:
        _add(builder, message, model)
    taken = {message.text("uuid") for message in path}
    parents = {message.text("parent_message_uuid") for message in given}
    ends = {message.text("uuid") for message in given} - parents
    builder.left["branch that an edit replaced"] = len(ends - taken)
    times = values.get("created_at"), values.get("updated_at")
    return builder.conversation(values.text("uuid"), values.text("name"), *times)


def _path(given: Sequence[Table], leaf: str) -> Sequence[Table]:
    """The messages from the first to the last, without those that an edit replaced."""
    by_id = {message.text("uuid"): message for message in given if message.text("uuid")}
    if not any(message.text("parent_message_uuid") in by_id for message in given):
        return given
    last = by_id.get(leaf) or given[-1]
    return last.path(lambda message: by_id.get(message.text("parent_message_uuid")))


def _add(builder: TurnBuilder, message: Table, model: str | None) -> None:
    said, reasoning = [], []
    for part in message.tables("content"):
        kind = part.text("type")
        if kind == "thinking":
            reasoning.append(part.text("thinking"))
        elif kind in _COUNTED:
            builder.left[_COUNTED[kind]] += 1
        elif text := part.text("text"):
            said.append(text)
        elif kind not in (*_SILENT, "text"):
            builder.left["part of another kind"] += 1
    # The field `text` only repeats the parts, with notices in place of parts that are not text.
    text = "\n\n".join(said) if said or message.list("content") else message.text("text")
    sender = message.text("sender")
    if sender == "assistant":
        builder.assistant(text, model=model, reasoning="\n\n".join(reasoning))
    elif sender in ("human", "user"):
        texts = [text] if text.strip() else []
        prompt = "\n\n".join([*texts, *_files(builder, message)])
        more = bool(message.list("attachments") or message.list("files"))
        builder.user(prompt, message.get("created_at"), more=more)
    else:
        builder.left["message of an unknown role"] += 1


def _files(builder: TurnBuilder, message: Table) -> list[str]:
    """The texts of attached files, each in a fence; files without a text are counted."""
    texts, names = [], set()
    for key in ("attachments", "files"):
        for file in message.tables(key):
            name, text = file.text("file_name"), file.text("extracted_content")
            if key == "attachments" and text:
                texts.append(fenced(text, name))
                names.add(name)
            elif key == "attachments" or name not in names:
                picture = PurePosixPath(name).suffix.lower() in _PICTURES
                builder.left["image" if picture else "file"] += 1
    return texts
