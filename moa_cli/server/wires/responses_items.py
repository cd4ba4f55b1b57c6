"""The items of a Responses reply, and their events in OpenAI's order.

Source: OpenAI's API reference, "Responses", "Streaming events".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any, Literal

from moa_cli.core.conversation import Citation
from moa_cli.core.nesting import is_deeper
from moa_cli.core.text import is_json, loads_or_none
from moa_cli.core.unique import unique_name
from moa_cli.server.wires.custom_input import CustomInput
from moa_cli.server.wires.openai_tools import BUILTIN
from moa_cli.server.wires.responses_tools import ClientTool
from moa_cli.server.wires.sse import compact


class EventWriter:
    """Writes the events of one reply, each with the next number."""

    def __init__(self) -> None:
        self._numbers = count()

    def event(self, kind: str, **fields: Any) -> str:
        values = compact({"type": kind, **fields, "sequence_number": self.next()})
        return f"event: {kind}\ndata: {values}\n\n"

    def next(self) -> int:
        return next(self._numbers)


class OutputItem:
    """An item of the output that grows while it is streamed. index: its place in the output."""

    prefix = ""

    def __init__(self, writer: EventWriter, index: int) -> None:
        self._writer = writer
        self.index = index
        # The complete item, after its end.
        self.whole: dict[str, Any] | None = None
        self._text: list[str] = []
        self.id = f"{self.prefix}_{unique_name()}"
        self._place = {"item_id": self.id, "output_index": index}

    def opened(self) -> str:
        """The events that begin the item."""
        raise NotImplementedError

    def add(self, text: str) -> str:
        """The event of the next piece."""
        raise NotImplementedError

    def close(self, status: str) -> str:
        """The events that end the item; "" if it has ended already."""
        if self.whole is not None:
            return ""
        told, self.whole = self._closed(status)
        kind = "response.output_item.done"
        return told + self._writer.event(kind, output_index=self.index, item=self.whole)

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        """The events before the last one, and the complete item."""
        raise NotImplementedError

    def _at_place(self, kind: str, **fields: Any) -> str:
        return self._writer.event(f"response.{kind}", **self._place, **fields)

    def _added(self, item: dict[str, Any]) -> str:
        kind = "response.output_item.added"
        return self._writer.event(kind, output_index=self.index, item=item)

    def _before_delta(self, kind: str, **place: Any) -> str:
        """The common beginning of all deltas. Made once, because there is a delta for each token,
        and a server spends most of its time on them."""
        kind = f"response.{kind}.delta"
        start = compact({"type": kind, **self._place, **place})[:-1]
        return f'event: {kind}\ndata: {start},"delta":'

    def _delta(self, before: str, text: str, more: str = "") -> str:
        self._text.append(text)
        return f'{before}{json.dumps(text)}{more},"sequence_number":{self._writer.next()}}}\n\n'


MessageKind = Literal["output_text", "refusal"]


class MessageItem(OutputItem):
    """The text of the reply, or, with kind `refusal`, the reason for a refusal."""

    prefix = "msg"

    def __init__(self, writer: EventWriter, index: int, kind: MessageKind = "output_text") -> None:
        super().__init__(writer, index)
        self._kind = kind
        self._is_text = kind == "output_text"
        self.citations: tuple[Citation, ...] = ()
        self._before = self._before_delta(kind, content_index=0)
        # The log-probabilities of each token, as JSON.
        self._logprobs: list[str] = []

    def opened(self) -> str:
        added = self._added(self._item("in_progress", []))
        part = self._part("", [], [])
        return added + self._at_place("content_part.added", content_index=0, part=part)

    def add(self, text: str, logprobs: Sequence[str] = ()) -> str:
        self._logprobs += logprobs
        more = f',"logprobs":[{",".join(logprobs)}]' if self._is_text else ""
        return self._delta(self._before, text, more)

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        text, logprobs = "".join(self._text), [*map(json.loads, self._logprobs)]
        notes = [_annotation(cited, len(text)) for cited in self.citations]
        event = "output_text.annotation.added"
        told = [
            self._at_place(event, content_index=0, annotation_index=number, annotation=note)
            for number, note in enumerate(notes)
        ]
        said = {"text": text, "logprobs": logprobs} if self._is_text else {"refusal": text}
        part = self._part(text, notes, logprobs)
        told.append(self._at_place(f"{self._kind}.done", content_index=0, **said))
        told.append(self._at_place("content_part.done", content_index=0, part=part))
        return "".join(told), self._item(status, [part])

    def _part(self, text: str, notes: list[Any], logprobs: list[Any]) -> dict[str, Any]:
        if not self._is_text:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": notes, "logprobs": logprobs, "text": text}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        said = {"status": status, "content": content, "role": "assistant"}
        return {"id": self.id, "type": "message", **said}


def _annotation(cited: Citation, end: int) -> dict[str, Any]:
    """A source as an annotation of the whole text, because endpoints do not say which part it
    belongs to."""
    place = {"start_index": 0, "end_index": end}
    return {"type": "url_citation", **place, "url": cited.url, "title": cited.title}


class ReasoningItem(OutputItem):
    """Reasoning, as a summary of one part."""

    prefix = "rs"

    def __init__(self, writer: EventWriter, index: int) -> None:
        super().__init__(writer, index)
        self._before = self._before_delta("reasoning_summary_text", summary_index=0)

    def opened(self) -> str:
        added = self._added({"id": self.id, "type": "reasoning", "summary": []})
        return added + self._part("added", "")

    def add(self, text: str) -> str:
        return self._delta(self._before, text)

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        text = "".join(self._text)
        summary = [{"type": "summary_text", "text": text}]
        item = {"id": self.id, "type": "reasoning", "summary": summary}
        told = self._at_place("reasoning_summary_text.done", summary_index=0, text=text)
        return told + self._part("done", text), item

    def _part(self, what: str, text: str) -> str:
        part = {"type": "summary_text", "text": text}
        return self._at_place(f"reasoning_summary_part.{what}", summary_index=0, part=part)


class CallItem(OutputItem):
    """A call of a function."""

    prefix = "fc"
    kind = "function_call"
    field = "arguments"
    deltas = "function_call_arguments"

    def __init__(self, writer: EventWriter, index: int, tool: ClientTool, call_id: str) -> None:
        super().__init__(writer, index)
        self._tool = tool
        self._call_id = call_id or f"call_{unique_name()}"
        self._before = self._before_delta(self.deltas)

    def opened(self) -> str:
        return self._added(self._item("in_progress", ""))

    def add(self, text: str) -> str:
        return self._delta(self._before, text) if text else ""

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are complete."""
        return is_json("".join(self._text))

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        told = self._rest()
        text = "".join(self._text)
        told += self._at_place(f"{self.deltas}.done", **{self.field: text})
        return told, self._item(status, text)

    def _rest(self) -> str:
        """The event for arguments that were not sent yet."""
        # Some endpoints send no arguments for a call without any, and clients expect JSON.
        return "" if "".join(self._text).strip() else self._delta(self._before, "{}")

    def _item(self, status: str, text: str) -> dict[str, Any]:
        item = {
            "id": self.id,
            "type": self.kind,
            "status": status,
            self.field: text,
            "call_id": self._call_id,
            "name": self._tool.name,
        }
        return item | ({"namespace": self._tool.namespace} if self._tool.namespace else {})


class CustomCallItem(CallItem):
    """A call of a custom tool, which the model makes as a function call with one argument."""

    prefix = "ctc"
    kind = "custom_tool_call"
    field = "input"
    deltas = "custom_tool_call_input"

    def __init__(self, writer: EventWriter, index: int, tool: ClientTool, call_id: str) -> None:
        super().__init__(writer, index, tool, call_id)
        self._input = CustomInput()

    def add(self, text: str) -> str:
        return super().add(self._input.take(text))

    @property
    def is_whole(self) -> bool:
        return self._input.is_whole

    def _rest(self) -> str:
        return super().add(self._input.end())


class BuiltinCallItem(CallItem):
    """A call of one of OpenAI's own tools that the client runs. It begins once its arguments are
    complete, because clients take its operation from its first event."""

    def __init__(self, writer: EventWriter, index: int, tool: ClientTool, call_id: str) -> None:
        self._builtin = BUILTIN[tool.kind]
        self.prefix, self.kind = self._builtin.prefix, f"{tool.kind}_call"
        super().__init__(writer, index, tool, call_id)

    def opened(self) -> str:
        return ""

    def add(self, text: str) -> str:
        told = "" if self._text else self._added(self._item("in_progress", text))
        self._text.append(text)
        return told

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        return "", self._item(status, "".join(self._text))

    def _item(self, status: str, text: str) -> dict[str, Any]:
        named = {"id": self.id, "type": self.kind, "call_id": self._call_id, "status": status}
        return named | self._builtin.call(text)


class SearchCallItem(CallItem):
    """A call of the client's own search for tools. Its arguments are sent as a whole."""

    prefix = "tsc"
    kind = "tool_search_call"

    def add(self, text: str) -> str:
        self._text.append(text)
        return ""

    def _closed(self, status: str) -> tuple[str, dict[str, Any]]:
        return "", self._item(status, "".join(self._text))

    def _item(self, status: str, text: str) -> dict[str, Any]:
        arguments = loads_or_none(text)
        if not is_json(text) or is_deeper(arguments):
            arguments = {"query": text} if text else {}
        return {
            "id": self.id,
            "type": self.kind,
            "execution": "client",
            "call_id": self._call_id,
            "status": status,
            "arguments": arguments,
        }


def call_item(writer: EventWriter, index: int, tool: ClientTool, call_id: str) -> CallItem:
    """The item of a call of that tool."""
    kinds = {"function": CallItem, "custom": CustomCallItem, "tool_search": SearchCallItem}
    return kinds.get(tool.kind, BuiltinCallItem)(writer, index, tool, call_id)
