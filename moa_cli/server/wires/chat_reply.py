"""Chat completions and their chunks in OpenAI's format."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from moa_cli.core import events
from moa_cli.core.conversation import Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.outcomes import ending_of, refusal_of
from moa_cli.core.tools import ToolCall, ToolPiece, joined_pieces
from moa_cli.core.unique import unique_name
from moa_cli.server.errors import ApiError
from moa_cli.server.wires import sse
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.chat_request import ChatBody
from moa_cli.server.wires.moa_object import ledger, sources, together, tokens
from moa_cli.server.wires.proposals import ProposalStream, proposals_of
from moa_cli.server.wires.sse import compact


def finish_of(reply: Turn | events.AggregatorFinished) -> str:
    """Why a reply ends, in OpenAI's words."""
    ending: str = ending_of(reply.finish_reason)
    if reply.tool_calls and ending in ("stop", "tool_calls"):
        # Some endpoints end calls with `stop`. A cut reply keeps its own reason, because a client
        # must not run a call that was cut.
        return "tool_calls"
    # The words of a refusal were sent as text. `tool_calls` without calls becomes `stop`: the
    # client does not learn of tools that it did not offer.
    return {"refusal": "content_filter", "tool_calls": "stop"}.get(ending, ending)


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        **tokens(usage),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class CompletionsEncoder:
    """The common part of the encoders for chat completions and text completions; see
    `wire.Encoder`.

    kind: the `object` of a whole reply. prefix: the prefix of the reply's id.
    """

    kind = prefix = ""

    def __init__(self, asked: Asked, body: ChatBody, fingerprint: str) -> None:
        self._asked = asked
        self._id = f"{self.prefix}-{unique_name()}"
        self._created = int(time.time())
        self._fingerprint = fingerprint
        self._include_usage = bool(body.stream_options and body.stream_options.include_usage)
        # The choices for which something was sent.
        self._begun: set[int] = set()
        # Replies that have ended while their turns continue, and choices whose end was sent.
        self._finished: dict[int, events.AggregatorFinished] = {}
        self._ended: set[int] = set()

    def _fields(self, kind: str) -> dict[str, Any]:
        """The common fields of all chunks of a reply."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            # The name that the client sent.
            "model": self._asked.model,
            "system_fingerprint": self._fingerprint,
        }

    def _end_before_report(self, event: Event, choice: int) -> events.AggregatorFinished | None:
        """Handle the next event. Returns the end of the reply if a report follows it, so that a
        client need not wait for the report."""
        if isinstance(event, events.AggregatorFinished):
            self._finished[choice] = event
        elif isinstance(event, events.LayerStarted) and choice in self._finished:
            self._ended.add(choice)
            return self._finished.pop(choice)
        return None

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        whole = together(turns)
        return {
            **self._fields(self.kind),
            "choices": [self._whole_choice(number, turn) for number, turn in enumerate(turns)],
            "usage": self._usage(whole),
            **self._after(whole),
        }

    def _whole_choice(self, number: int, turn: Turn) -> dict[str, Any]:
        raise NotImplementedError

    def _usage(self, turn: Turn) -> dict[str, Any]:
        """The usage that the client gets: the sum, so that the client sees what it pays for, unless
        the request asks for the usage of the reply."""
        return _usage_object(self._asked.usage_of(turn, "sum"))

    def _after(self, turn: Turn) -> dict[str, Any]:
        """The further fields at the end of a reply. Sources have the form that Perplexity's clients
        expect."""
        found: dict[str, Any] = {}
        if turn.citations:
            found["citations"] = [cited.url for cited in turn.citations]
            found["search_results"] = sources(turn)
        return {**found, "moa": ledger(turn, self._asked.ignored_in(turn))}

    def fail(self, error: ApiError) -> bytes:
        return sse.event(error.body())

    def comment(self, text: str) -> bytes:
        return sse.comment(text)


class ChatEncoder(CompletionsEncoder):
    """A reply on the wire of chat completions."""

    kind, prefix = "chat.completion", "chatcmpl"

    def __init__(
        self, asked: Asked, body: ChatBody, *, fingerprint: str, show_proposals: bool
    ) -> None:
        super().__init__(asked, body, fingerprint)
        # Whether the client uses functions, the older form of tools.
        self._legacy = not body.tools and bool(body.functions)
        self._proposals = ProposalStream() if show_proposals else None
        usage = ',"usage":null' if self._include_usage else ""
        self._chunk_end = f',"finish_reason":null}}]{usage}}}\n\n'

    @cached_property
    def _before(self) -> list[str]:
        """The common beginning of the chunks of each choice. Made once, because there is a chunk
        for each token, and a server spends most of its time on them."""
        start = compact(self._fields("chat.completion.chunk"))[:-1]
        return [
            f'data: {start},"choices":[{{"index":{choice},"delta":{{'
            for choice in range(self._asked.choices)
        ]

    def take(self, event: Event, choice: int = 0) -> bytes:
        thought = ""
        if self._proposals is not None and not choice:
            thought = self._proposals.take(event)
        told = self._delta(f'"reasoning_content":{json.dumps(thought)}') if thought else b""
        if isinstance(event, events.AggregatorDelta):
            fields = f'"content":{json.dumps(event.text)}' if event.text else ""
            if fields or event.token_logprobs:
                told += self._delta(fields, choice, event.token_logprobs)
            # A chunk for each call, as OpenAI sends them: clients look at the first one of a chunk.
            for piece in joined_pieces(event.tool_calls):
                # The older form allows only one call, because its pieces have no index.
                if not (self._legacy and piece.index):
                    told += self._delta(self._call(piece), choice)
        elif (finished := self._end_before_report(event, choice)) is not None:
            told += self._missing_arguments(finished, choice)
            told += sse.event(self._ending(choice, self._finish(finished)))
        return told

    def _missing_arguments(self, reply: Turn | events.AggregatorFinished, choice: int) -> bytes:
        """Chunks with the arguments of calls that have none; see `_calls_of`."""
        calls = zip(reply.tool_calls, _calls_of(reply), strict=True)
        pieces = (
            ToolPiece(index, arguments=whole.arguments)
            for index, (call, whole) in enumerate(calls)
            if whole is not call and not (self._legacy and index)
        )
        return b"".join(self._delta(self._call(piece), choice) for piece in pieces)

    def _call(self, piece: ToolPiece) -> str:
        if not self._legacy:
            return f'"tool_calls":{compact([_piece(piece)])}'
        named = {"name": piece.name} if piece.name else {}
        return f'"function_call":{compact({**named, "arguments": piece.arguments})}'

    def _delta(self, fields: str, choice: int = 0, logprobs: Sequence[str] = ()) -> bytes:
        """A chunk with these fields in its delta. Before the first chunk of a choice, a chunk with
        the role is sent."""
        told = f'{{"content":[{",".join(logprobs)}],"refusal":null}}' if logprobs else "null"
        before = self._before[choice]
        chunk = f'{before}{fields}}},"logprobs":{told}{self._chunk_end}'
        if choice in self._begun:
            return chunk.encode()
        self._begun.add(choice)
        role = '"role":"assistant","content":"","refusal":null},"logprobs":null'
        return f"{before}{role}{self._chunk_end}{chunk}".encode()

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The last chunks. The very last one holds the `moa` object."""
        said, chunks = [], []
        for choice, turn in enumerate(turns):
            refusal = refusal_of(turn)
            if refusal is not None:
                said.append(self._delta(f'"refusal":{json.dumps(refusal)}', choice))
            elif choice not in self._begun:
                # An empty reply has a chunk with the role, too.
                said.append(self._delta("", choice))
            if choice not in self._ended:
                said.append(self._missing_arguments(turn, choice))
                chunks.append(self._ending(choice, self._finish(turn)))
        whole = together(turns)
        if self._include_usage:
            fields = self._fields("chat.completion.chunk")
            chunks.append({**fields, "choices": [], "usage": self._usage(whole)})
        elif not chunks:
            chunks.append(self._ending(0, None))
        chunks[-1] |= self._after(whole)
        return b"".join([*said, *map(sse.event, chunks), b"data: [DONE]\n\n"])

    def _ending(self, choice: int, finish: str | None) -> dict[str, Any]:
        """The last chunk of a choice, which has no text."""
        ending = {"index": choice, "delta": {}, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._include_usage else {}
        return {**self._fields("chat.completion.chunk"), "choices": [ending], **usage}

    def _finish(self, reply: Turn | events.AggregatorFinished) -> str:
        finish = finish_of(reply)
        return "function_call" if self._legacy and finish == "tool_calls" else finish

    def _whole_choice(self, number: int, turn: Turn) -> dict[str, Any]:
        refusal = refusal_of(turn)
        content = None if refusal else turn.reply or ""
        if turn.tool_calls:
            content = content or None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal}
        if turn.tool_calls and self._legacy:
            call = _calls_of(turn)[0]
            message["function_call"] = {"name": call.name, "arguments": call.arguments}
        elif turn.tool_calls:
            message["tool_calls"] = [_call(call) for call in _calls_of(turn)]
        if self._proposals is not None and not number:
            message["reasoning_content"] = proposals_of(turn) + turn.reasoning
        logprobs = None
        if turn.token_logprobs:
            logprobs = {"content": [*map(json.loads, turn.token_logprobs)], "refusal": None}
        return {
            "index": number,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._finish(turn),
        }


def _calls_of(reply: Turn | events.AggregatorFinished) -> list[ToolCall]:
    """The calls of a reply. Unless it was cut, a call of a function has arguments: some endpoints
    send nothing for a call without any, and clients expect JSON."""
    if finish_of(reply) != "tool_calls":
        return list(reply.tool_calls)
    return [
        call if call.kind == "custom" or call.arguments.strip() else replace(call, arguments="{}")
        for call in reply.tool_calls
    ]


def _call(call: ToolCall) -> dict[str, Any]:
    written = "input" if call.kind == "custom" else "arguments"
    inner = {"name": call.name, written: call.arguments}
    return {"id": call.id, "type": call.kind, call.kind: inner}


def _piece(piece: ToolPiece) -> dict[str, Any]:
    """A piece of a call. Its id, kind and name come with the first one, as clients expect it."""
    written = "input" if piece.kind == "custom" else "arguments"
    inner = {"name": piece.name} if piece.name else {}
    told: dict[str, Any] = {"index": piece.index}
    if piece.id:
        told |= {"id": piece.id, "type": piece.kind}
    return {**told, piece.kind: {**inner, written: piece.arguments}}
