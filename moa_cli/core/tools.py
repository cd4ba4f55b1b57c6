"""Calls of tools, as a model writes them: whole, and in the pieces of a stream.

Source: OpenAI's API reference, "Create chat completion", `tools` and `tool_calls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

ToolKind = Literal["function", "custom"]


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool. Who asked makes the call; `moa` passes it on.

    Attributes:
        id: What the result of the call is matched by.
        name: The name of the tool.
        arguments: For a function its arguments as JSON, as the model wrote them: it may be
            malformed. For a custom tool its input.
        kind: `function`, or `custom` for a tool that takes free text.
    """

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"


@dataclass(frozen=True)
class ToolPiece:
    """The next piece of a `ToolCall`.

    index: which call of the answer it belongs to, counted from 0. id, name: empty if a piece before
    it has told them.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    kind: ToolKind = "function"


def joined_pieces(pieces: Sequence[ToolPiece]) -> list[ToolPiece]:
    """The same pieces, with one for all that follow each other and belong to one call."""
    joined: list[ToolPiece] = []
    for piece in pieces:
        if joined and joined[-1].index == piece.index:
            before = joined[-1]
            joined[-1] = replace(
                before,
                id=before.id or piece.id,
                name=before.name or piece.name,
                arguments=before.arguments + piece.arguments,
            )
        else:
            joined.append(piece)
    return joined


class ToolCallBuilder:
    """The calls of an answer, put together from their pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, pieces: tuple[ToolPiece, ...]) -> None:
        for piece in pieces:
            before = self._calls.get(piece.index) or ToolCall("", "", "", piece.kind)
            # Some endpoints repeat id and name with each piece, so the first ones stay.
            self._calls[piece.index] = ToolCall(
                before.id or piece.id,
                before.name or piece.name,
                before.arguments + piece.arguments,
                before.kind,
            )

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far, in the order of their index."""
        return tuple(call for _, call in sorted(self._calls.items())) if self._calls else ()
