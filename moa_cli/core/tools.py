"""Tool calls of a model: whole ones, and the pieces of them in a stream.

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
    """The tools that a request offers. The list is never changed: its JSON is made only once, for
    the estimate of its size and for sending, because agents offer dozens of tools."""

    @cached_property
    def json(self) -> str:
        """The tools as JSON."""
        return json.dumps(self)


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool. `moa` only passes it on; the client makes the call.

    Attributes:
        id: The id by which the result refers to the call.
        name: The name of the tool.
        arguments: For a function, its arguments as the model wrote them in JSON, which may be
            malformed. For a custom tool, its input.
        kind: `function`, or `custom` for a tool that takes free text.
    """

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"


@dataclass(frozen=True)
class ToolPiece:
    """The next piece of a `ToolCall`.

    index: the number of the call in the answer, from 0. id, name: empty if an earlier piece had
    them.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    kind: ToolKind = "function"

    def __add__(self, after: ToolPiece) -> ToolPiece:
        """Two pieces as one. Some endpoints repeat id and name in each piece, so the first ones
        stay."""
        return ToolPiece(
            self.index,
            self.id or after.id,
            self.name or after.name,
            self.arguments + after.arguments,
            self.kind,
        )


def joined_pieces(pieces: Sequence[ToolPiece]) -> list[ToolPiece]:
    """The pieces, with neighbouring pieces of one call joined."""
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
