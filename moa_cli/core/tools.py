"""Calls of tools, as a model writes them: whole, and in the pieces of a stream.

Source: OpenAI's API reference, "Create chat completion", `tools` and `tool_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

ToolKind = Literal["function", "custom"]


class OfferedTools(list[dict[str, Any]]):
    """The tools that a request offers. They are never changed, as their size is estimated and they
    are sent, by the same JSON: agents offer dozens."""

    @cached_property
    def json(self) -> str:
        """The tools as JSON."""
        return json.dumps(self)


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

    def __add__(self, after: ToolPiece) -> ToolPiece:
        """The two as one. Some endpoints repeat id and name with each, so the first ones stay."""
        return ToolPiece(
            self.index,
            self.id or after.id,
            self.name or after.name,
            self.arguments + after.arguments,
            self.kind,
        )


def joined_pieces(pieces: Sequence[ToolPiece]) -> list[ToolPiece]:
    """The same pieces, with one for all that follow each other and belong to one call."""
    joined: list[ToolPiece] = []
    for piece in pieces:
        if joined and joined[-1].index == piece.index:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


class ToolCallBuilder:
    """The calls of an answer, put together from their pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolPiece] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, pieces: tuple[ToolPiece, ...]) -> None:
        for piece in pieces:
            before = self._calls.get(piece.index)
            self._calls[piece.index] = piece if before is None else before + piece

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far, in the order of their index."""
        return tuple(
            ToolCall(call.id, call.name, call.arguments, call.kind)
            for _, call in sorted(self._calls.items())
        )
