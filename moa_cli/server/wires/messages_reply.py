"""Messages, the events of their stream, and errors, in the format of Anthropic's Messages API.

Source: Anthropic's API reference, "Create a Message", "Streaming Messages" and "Errors".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from moa_cli.core import events
from moa_cli.core.conversation import Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.nesting import is_deeper
from moa_cli.core.outcomes import ending_of, refusal_of
from moa_cli.core.text import is_json, loads_or_none
from moa_cli.core.tools import ToolCall, ToolPiece
from moa_cli.core.unique import unique_name
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.messages_request import (
    THREAD_NOT_FOUND,
    MessagesRequest,
    tokens_of,
)
from moa_cli.server.wires.moa_object import ledger, sources
from moa_cli.server.wires.proposals import ProposalStream, proposals_of
from moa_cli.server.wires.sse import compact

_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "refusal": "refusal",
    "tool_calls": "tool_use",
}
# Clients keep a thinking block only if it has a signature, and send both back; `messages_content`
# ignores them.
_SIGNATURE = "moa"
_NO_JSON = "INVALID_JSON"
_Said = Literal["text", "thinking"]


def error_body(error: ApiError, request_id: str | None = None) -> dict[str, Any]:
    """The JSON object of an error. request_id: the id of the failed request."""
    plain = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message
    if error.code == "context_length_exceeded":
        # If the message begins like this, agents summarize the conversation and continue.
        message = f"prompt is too long: {message}"
    told: dict[str, Any] = {"type": _ERRORS.get(error.status, plain), "message": message}
    if error.code == THREAD_NOT_FOUND:
        told["details"] = {"error_code": error.code}
    named = {} if request_id is None else {"request_id": request_id}
    return {"type": "error", "error": told, **named}


def model_info(name: str, created: int, context: int | None) -> dict[str, Any]:
    """A model in the form of Anthropic's list. created: in seconds since 1970. context: in
    tokens."""
    at = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    told = {"type": "model", "id": name, "display_name": name, "created_at": at}
    return told | ({} if context is None else {"max_input_tokens": context})


def model_list(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "data": list(models),
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


class MessagesEncoder:
    """A reply on the wire of messages; see `wire.Encoder`."""

    def __init__(
        self, asked: Asked, request: MessagesRequest, *, fingerprint: str, show_proposals: bool
    ) -> None:
        self._asked = asked
        self._request = request
        self._id = f"msg_{unique_name()}"
        self._proposals = ProposalStream() if show_proposals else None
        self._begun = False
        self._replied = False
        self._blocks = _BlockStream(request.tool_names)
        # Whether calls are sent: not to a client that offered no tools.
        self._takes_calls = "tools" in asked.extra

    def take(self, event: Event, choice: int = 0) -> bytes:
        told = b""
        if self._proposals is not None:
            told = self._blocks.say("thinking", self._proposals.take(event))
        if isinstance(event, events.LayerStarted) and self._replied:
            # A report follows the reply, and the client should not have to wait for it to use the
            # reply.
            told += self._blocks.end()
        self._replied = self._replied or isinstance(event, events.AggregatorFinished)
        if isinstance(event, events.AggregatorDelta):
            if self._proposals is None and self._request.thinks:
                told = self._blocks.say("thinking", event.reasoning)
            told += self._blocks.say("text", event.text)
            if event.tool_calls and self._takes_calls:
                told += self._blocks.calls(event.tool_calls)
        return self._start() + told if told else b""

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The last events. `message_delta` holds the `moa` object."""
        turn = turns[0]
        refusal = self._blocks.say("text", refusal_of(turn) or "")
        # Before `called` is read, because this may send calls that were held back.
        told = self._start() + refusal + self._blocks.end()
        end = {
            "type": "message_delta",
            "delta": _stop(turn, called=self._blocks.called),
            **self._after(turn),
        }
        return told + _event(end) + _event({"type": "message_stop"})

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        turn = turns[0]
        calls = turn.tool_calls if self._takes_calls else ()
        text = refusal_of(turn) or turn.reply
        said = [{"type": "text", "text": text}] if text else []
        return {
            **self._message(),
            "content": [*self._thoughts(turn), *said, *map(self._called, calls)],
            **_stop(turn, called=bool(calls)),
            **self._after(turn),
        }

    def fail(self, error: ApiError) -> bytes:
        return _event(error_body(error))

    def comment(self, text: str) -> bytes:
        """A comment and a ping, which clients accept only within a message."""
        return self._start() + f": {text}\n".encode() + _event({"type": "ping"})

    def _start(self) -> bytes:
        """The beginning of the message, if it has not been sent yet."""
        if self._begun:
            return b""
        self._begun = True
        # An estimate, until the endpoint reports its count.
        usage = _usage_object(Usage(prompt_tokens=tokens_of(self._asked)))
        stop = {"stop_reason": None, "stop_sequence": None}
        message = {**self._message(), "content": [], **stop, "usage": usage}
        return _event({"type": "message_start", "message": message})

    def _message(self) -> dict[str, Any]:
        model = self._asked.model
        return {"id": self._id, "type": "message", "role": "assistant", "model": model}

    def _after(self, turn: Turn) -> dict[str, Any]:
        """The further fields at the end of a reply. The usage is usually that of the call that
        wrote the reply, because agents use it to measure how long their context is."""
        cited = {"citations": sources(turn)} if turn.citations else {}
        return {
            "usage": _usage_object(self._asked.usage_of(turn, "reply")),
            "moa": ledger(turn, self._asked.ignored_in(turn)) | cited,
        }

    def _thoughts(self, turn: Turn) -> list[dict[str, Any]]:
        thoughts = "" if self._proposals is None else proposals_of(turn)
        if self._proposals is not None or self._request.thinks:
            thoughts += turn.reasoning
        block = {"type": "thinking", "thinking": thoughts, "signature": _SIGNATURE}
        return [block] if thoughts else []

    def _called(self, call: ToolCall) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": call.id or _call_id(),
            "name": self._request.tool_names.get(call.name, call.name),
            "input": _input(call.arguments),
        }


def _call_id() -> str:
    return f"toolu_{unique_name()}"


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a call as an object. If the model wrote no JSON object, they are wrapped as
    described in Anthropic's documentation of fine-grained tool streaming."""
    if not arguments.strip():
        return {}
    found = loads_or_none(arguments)
    return found if isinstance(found, dict) and not is_deeper(found) else {_NO_JSON: arguments}


def _stop(turn: Turn, *, called: bool) -> dict[str, Any]:
    """Why the reply ends, in Anthropic's words. `stop_sequence` is unknown, because endpoints do
    not report which stop text was found."""
    ending = ending_of(turn.finish_reason)
    refusal = refusal_of(turn)
    if refusal is not None:
        ending = "refusal"
    elif ending in ("stop", "tool_calls"):
        ending = "tool_calls" if called else "stop"
    stop: dict[str, Any] = {"stop_reason": _STOPS[ending], "stop_sequence": None}
    if ending in ("refusal", "content_filter"):
        stop["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return stop


def _usage_object(usage: Usage) -> dict[str, Any]:
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return {
        "input_tokens": usage.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }


def _event(values: dict[str, Any]) -> bytes:
    return f"event: {values['type']}\ndata: {compact(values)}\n\n".encode()


class _BlockStream:
    """The content blocks of a streamed message. Only one block is open at a time.

    tool_names: see `MessagesRequest`.
    """

    def __init__(self, tool_names: Mapping[str, str]) -> None:
        self._tool_names = tool_names
        self._index = -1
        # The kind of the open block; for a tool call, the number of the call in the reply.
        self._open: str | int | None = None
        self._calls: dict[int, _StreamedCall] = {}
        self._late: list[tuple[_Said, str]] = []

    @property
    def called(self) -> bool:
        """Whether a tool call was sent."""
        return any(call.told for call in self._calls.values())

    def say(self, kind: _Said, text: str) -> bytes:
        """The events for the next piece of text or of reasoning."""
        if not text:
            return b""
        if isinstance(self._open, int) and not self._calls[self._open].is_whole:
            # Held back, because a new block would end a call whose arguments are still arriving.
            self._late.append((kind, text))
            return b""
        block = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        return self._begin(kind, block) + self._delta(f"{kind}_delta", kind, text)

    def calls(self, pieces: Sequence[ToolPiece]) -> bytes:
        """The events for the next pieces of tool calls. Pieces of several calls may be interleaved,
        and are sent call by call."""
        told = b""
        for piece in pieces:
            call = self._calls.setdefault(piece.index, _StreamedCall(ToolPiece(piece.index)))
            call.joined += piece
            told += self._tell(piece.index)
        return told

    def _tell(self, number: int) -> bytes:
        """The events for the pieces of a call that can be sent now."""
        call, live = self._calls[number], self._open
        joined = call.joined
        waits = isinstance(live, int) and live != number and not self._calls[live].is_whole
        # Nothing can be added to a block that has ended.
        if not joined.name or call.ended or waits:
            return b""
        call.told = True
        name = self._tool_names.get(joined.name, joined.name)
        named = {"id": joined.id or _call_id(), "name": name}
        begun = self._begin(number, {"type": "tool_use", **named, "input": {}})
        piece, call.sent = joined.arguments[call.sent :], len(joined.arguments)
        return begun + self._delta("input_json_delta", "partial_json", piece) if piece else begun

    def end(self) -> bytes:
        """The events that end the open block, and the held-back text and calls."""
        told = self._stop_block()
        late, self._late = self._late, []
        told += b"".join(self.say(kind, text) for kind, text in late) + self._stop_block()
        for number, call in sorted(self._calls.items()):
            if not call.told and call.joined.name:
                told += self._tell(number) + self._stop_block()
        return told

    def _begin(self, kind: str | int, block: dict[str, Any]) -> bytes:
        if kind == self._open:
            return b""
        ended = self._stop_block()
        self._open = kind
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return ended + _event(start)

    def _stop_block(self) -> bytes:
        """The events that end the open block."""
        if self._open is None:
            return b""
        told = b""
        if self._open == "thinking":
            told = self._delta("signature_delta", "signature", _SIGNATURE)
        elif isinstance(self._open, int):
            call = self._calls[self._open]
            call.ended = True
            if not call.joined.arguments.strip():
                told = self._delta("input_json_delta", "partial_json", "{}")
        self._open = None
        return told + _event({"type": "content_block_stop", "index": self._index})

    def _delta(self, kind: str, name: str, text: str) -> bytes:
        # Not encoded from a dictionary, because there is a delta for each token.
        delta = f'{{"type":"{kind}","{name}":{json.dumps(text)}}}'
        return (
            "event: content_block_delta\n"
            f'data: {{"type":"content_block_delta","index":{self._index},"delta":{delta}}}\n\n'
        ).encode()


@dataclass
class _StreamedCall:
    """A tool call that is arriving. joined: its pieces so far, joined. told, ended: whether its
    block has begun, and has ended. sent: how many characters of its arguments were sent."""

    joined: ToolPiece
    told: bool = False
    ended: bool = False
    sent: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are valid JSON, which is the only sign of their end while
        the reply is streamed."""
        return is_json(self.joined.arguments)
