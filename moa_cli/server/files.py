"""Reads the files in requests. Models get the text of a file, because few endpoints read files."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from moa_cli.core.conversation import Conversation, Message, Part, Turn, text_of_parts
from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.server.errors import ApiError

# How many files' texts are kept, because an agent sends the same files with each request of a
# conversation.
_KEPT = 32
# How many files are read at the same time; each is read by its own process.
_AT_ONCE = 2


class FileReader:
    """Reads the files of requests. It belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Part] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def read(self, conversation: Conversation) -> Conversation:
        """The conversation with the texts of its files.

        Raises ApiError for a file that cannot be read.
        """
        held = [message.parts for message in (*conversation.before, *conversation.after)]
        held += [turn.parts for turn in conversation.turns]
        if not any(_unread(part) for parts in held for part in parts):
            return conversation
        return replace(
            conversation,
            before=tuple([await self._message(message) for message in conversation.before]),
            turns=tuple([await self._turn(turn) for turn in conversation.turns]),
            after=tuple([await self._message(message) for message in conversation.after]),
        )

    async def _message(self, message: Message) -> Message:
        parts = await self._parts(message.parts)
        if parts == message.parts:
            return message
        return replace(message, content=text_of_parts(parts), parts=_beyond_text(parts))

    async def _turn(self, turn: Turn) -> Turn:
        parts = await self._parts(turn.parts)
        if parts == turn.parts:
            return turn
        return replace(turn, user=text_of_parts(parts), parts=_beyond_text(parts))

    async def _parts(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple([await self._part(part) if _unread(part) else part for part in parts])

    async def _part(self, part: Part) -> Part:
        from moa_cli.core.files.attachments import file_of_uri

        if not part.url.startswith("data:"):
            # Models could not read the address, and the server fetches nothing for clients.
            name = one_line(part.name) or "a file"
            why = f"{name}: is an address, not a file; send the file itself, as a data: URI"
            raise ApiError(400, why, code="unreadable_file")
        key = hashlib.sha256(f"{part.name}\0{part.url}".encode()).hexdigest()
        if key not in self._kept:
            try:
                async with self._slots:
                    read = await asyncio.to_thread(file_of_uri, part.url, part.name)
            except UsageError as error:
                raise ApiError(400, error.message, code="unreadable_file") from None
            self._kept[key] = read
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _unread(part: Part) -> bool:
    """Whether a part holds a file whose text is not known."""
    return part.kind == "file" and bool(part.url) and not part.text


def _beyond_text(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(parts) if any(part.kind != "text" for part in parts) else ()
