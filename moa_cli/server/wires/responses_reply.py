"""Responses and their events in OpenAI's format."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moa_cli.core import events
from moa_cli.core.conversation import Citation, Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.outcomes import ending_of, refusal_of
from moa_cli.core.text import is_json
from moa_cli.core.tools import ToolPiece
from moa_cli.core.unique import unique_name
from moa_cli.server.errors import ApiError
from moa_cli.server.wires import sse
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.moa_object import ledger
from moa_cli.server.wires.openai_tools import BUILTIN
from moa_cli.server.wires.proposals import ProposalStream, proposals_of
from moa_cli.server.wires.responses_items import (
    CallItem,
    EventWriter,
    MessageItem,
    MessageKind,
    OutputItem,
    ReasoningItem,
    call_item,
)
from moa_cli.server.wires.responses_request import ResponsesRequest

# Seconds without an event after which one is repeated. Some clients (codex) give up on a stream
# without events for some minutes, and comments do not count for them.
_REPEAT_SECONDS = 30.0
_INCOMPLETE = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
# The error codes that OpenAI's clients know. The clients explain these in their own words, and know
# whether to retry.
_CODES = {
    "rate_limit_exceeded": "rate_limit_exceeded",
    "server_busy": "rate_limit_exceeded",
    "context_length_exceeded": "context_length_exceeded",
    "budget_reached": "insufficient_quota",
    "content_filter": "invalid_prompt",
    "tools_unsupported": "invalid_prompt",
}


@dataclass
class _OpenCall:
    """A call whose pieces are arriving. They are held back until its item can begin."""

    held: ToolPiece
    item: CallItem | None = None


class _Output:
    """Builds the items of a reply from the pieces of its text, reasoning and calls. Each method
    returns the events for the new piece."""

    def __init__(self, request: ResponsesRequest, writer: EventWriter) -> None:
        self._table = request.table
        self._writer = writer
        # All items, in the order in which they began.
        self._begun: list[OutputItem] = []
        # The message or the reasoning that is being written.
        self._open: OutputItem | None = None
        self._calls: dict[int, _OpenCall] = {}
        self.has_reply = False

    @property
    def items(self) -> list[dict[str, Any]]:
        """The complete items, in order."""
        return [item.whole for item in self._begun if item.whole is not None]

    def reason(self, text: str) -> str:
        told = ""
        if not isinstance(self._open, ReasoningItem):
            told = self._close_open()
            self._open = ReasoningItem(self._writer, len(self._begun))
            told += self._begin(self._open)
        return told + self._open.add(text)

    def say(
        self, text: str, logprobs: Sequence[str] = (), *, kind: MessageKind = "output_text"
    ) -> str:
        """The events for a piece of the reply or of a refusal. logprobs: the log-probabilities of
        its tokens, as JSON."""
        told = ""
        self.has_reply = True
        if not isinstance(self._open, MessageItem):
            told = self._close_open() + self._close_whole_calls()
            self._open = MessageItem(self._writer, len(self._begun), kind)
            told += self._begin(self._open)
        return told + (self._open.add(text, logprobs) if text or logprobs else "")

    def call(self, piece: ToolPiece) -> str:
        self.has_reply = True
        call = self._calls.setdefault(piece.index, _OpenCall(ToolPiece(piece.index)))
        if call.item is None:
            call.held += piece
            return self._begin_call(call) if self._may_begin(call.held) else ""
        return call.item.add(piece.arguments) if call.item.whole is None else ""

    def _may_begin(self, held: ToolPiece) -> bool:
        """Whether the item of a call can begin with its pieces so far."""
        if not held.name:
            return False
        return self._table.called(held.name).kind not in BUILTIN or is_json(held.arguments)

    def _begin_call(self, call: _OpenCall) -> str:
        told = self._close_open() + self._close_whole_calls()
        tool = self._table.called(call.held.name)
        call.item = call_item(self._writer, len(self._begun), tool, call.held.id)
        return told + self._begin(call.item) + call.item.add(call.held.arguments)

    def end(self, status: str, citations: Sequence[Citation] = ()) -> str:
        """The events at the end of the reply. status: the status of items that are still being
        written."""
        if isinstance(self._open, MessageItem):
            self._open.citations = tuple(citations)
        told = self._close_open(status)
        for call in self._calls.values():
            if call.item is None:
                told += self._begin_call(call)
            assert call.item is not None
            told += call.item.close(status)
        return told

    def _begin(self, item: OutputItem) -> str:
        self._begun.append(item)
        return item.opened()

    def _close_open(self, status: str = "completed") -> str:
        item, self._open = self._open, None
        return "" if item is None else item.close(status)

    def _close_whole_calls(self) -> str:
        """End the calls whose arguments are complete. Usually each call ends when the next begins,
        but pieces of several calls may be interleaved."""
        calls = (call.item for call in self._calls.values() if call.item is not None)
        whole = (item for item in calls if item.whole is None and item.is_whole)
        return "".join(item.close("completed") for item in whole)


class ResponsesEncoder:
    """A reply on the wire of responses; see `wire.Encoder`."""

    def __init__(
        self, asked: Asked, request: ResponsesRequest, *, fingerprint: str, show_proposals: bool
    ) -> None:
        self._asked = asked
        self._writer = EventWriter()
        self._output = _Output(request, self._writer)
        self._proposals = ProposalStream() if show_proposals else None
        summary = (request.body.reasoning or {}).get("summary")
        self._show_reasoning = show_proposals or summary not in (None, "none")
        self._begun = False
        self._last_event = 0.0
        self._replied: events.AggregatorFinished | None = None
        self._fields = _fields(request)

    def take(self, event: Event, choice: int = 0) -> bytes:
        if isinstance(event, events.AggregatorDelta):
            reasoning = event.reasoning if self._show_reasoning else ""
            if not (reasoning or event.text or event.tool_calls or event.token_logprobs):
                return b""
            told = [self._begin()]
            if reasoning:
                told.append(self._output.reason(reasoning))
            if event.text or event.token_logprobs:
                told.append(self._output.say(event.text, event.token_logprobs))
            told.extend(map(self._output.call, event.tool_calls))
        elif isinstance(event, events.LayerStarted) and self._replied is not None:
            # A report follows the reply, and the client should not have to wait for it to use the
            # reply.
            told = [self._begin(), self._end_items(self._replied)]
        else:
            if isinstance(event, events.AggregatorFinished):
                self._replied = event
            text = self._proposals.take(event) if self._proposals else ""
            # Late proposals are not shown once the reply is being written.
            if not text or self._output.has_reply:
                return b""
            told = [self._begin(), self._output.reason(text)]
        self._last_event = time.monotonic()
        return "".join(told).encode()

    def _begin(self) -> str:
        if self._begun:
            return ""
        self._begun = True
        self._last_event = time.monotonic()
        return self._lifecycle("created", "in_progress") + self._lifecycle("in_progress")

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The last events. The `moa` object is in the very last."""
        told = self._begin()
        rest, response = self._finished(turns[0])
        told += rest + self._writer.event(f"response.{response['status']}", response=response)
        return told.encode()

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        turn = turns[0]
        reasoning = "" if self._proposals is None else proposals_of(turn)
        if self._show_reasoning:
            reasoning += turn.reasoning
        if reasoning:
            self._output.reason(reasoning)
        if turn.reply:
            self._output.say(turn.reply, turn.token_logprobs)
        for index, call in enumerate(turn.tool_calls):
            self._output.call(ToolPiece(index, call.id, call.name, call.arguments, call.kind))
        return self._finished(turn)[1]

    def _finished(self, turn: Turn) -> tuple[str, dict[str, Any]]:
        """The events that end the items, and the complete response."""
        refusal = refusal_of(turn)
        told = self._output.say(refusal, kind="refusal") if refusal is not None else ""
        told += self._end_items(turn, refused=refusal is not None)
        cut = None if refusal else _INCOMPLETE.get(ending_of(turn.finish_reason))
        status = "incomplete" if cut else "completed"
        response = self._response(
            status,
            completed_at=None if cut else int(time.time()),
            incomplete_details={"reason": cut} if cut else None,
            output=self._output.items,
            # By default the usage of the reply, because agents use it to measure how full their
            # context is.
            usage=usage_object(self._asked.usage_of(turn, "reply")),
            moa=ledger(turn, self._asked.ignored_in(turn)),
        )
        return told, response

    def _end_items(self, reply: Turn | events.AggregatorFinished, *, refused: bool = False) -> str:
        """The events that end the items. A reply without items gets an empty one."""
        told = "" if self._output.has_reply else self._output.say("")
        cut = not refused and ending_of(reply.finish_reason) in _INCOMPLETE
        return told + self._output.end("incomplete" if cut else "completed", reply.citations)

    def fail(self, error: ApiError) -> bytes:
        """The error as an event that raises an exception in OpenAI's libraries, and as a failed
        response for clients that continue to read."""
        told = self._begin() + self._output.end("incomplete")
        plain = error.body()["error"]
        flat = {name: plain[name] for name in ("code", "message", "param")}
        told += self._writer.event("error", **flat, error=plain)
        failure = {
            "code": _CODES.get(error.code or "", "server_error"),
            "message": error.message,
        }
        response = self._response("failed", output=self._output.items, error=failure)
        return (told + self._writer.event("response.failed", response=response)).encode()

    def comment(self, text: str) -> bytes:
        """A comment, and now and then an event, which show that the server is still working."""
        told = self._begin()
        if time.monotonic() - self._last_event >= _REPEAT_SECONDS:
            self._last_event = time.monotonic()
            told = self._lifecycle("in_progress")
        return told.encode() + sse.comment(text)

    def _lifecycle(self, kind: str, status: str = "in_progress") -> str:
        return self._writer.event(f"response.{kind}", response=self._response(status))

    def _response(self, status: str, **fields: Any) -> dict[str, Any]:
        return {**self._fields, "status": status, **fields}


def _fields(request: ResponsesRequest) -> dict[str, Any]:
    """The fields that all forms of a response share: they repeat the request."""
    body, given = request.body, request.given
    text, reasoning = body.text or {}, body.reasoning or {}
    return {
        "id": f"resp_{unique_name()}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": given.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": given.get("safety_identifier"),
        "service_tier": "default",
        "store": False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": list(body.tools or ()),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
