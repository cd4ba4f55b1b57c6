"""The wire of `POST /v1/completions`, for clients of the older API for plain text.

The prompt becomes the message of a user. Source: OpenAI's API reference, "Create completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from moa_cli.core import events
from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.core.outcomes import refusal_of
from moa_cli.core.values import Key
from moa_cli.server.wires import sse
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.bodies import AnyText, json_object, read_body, refuse
from moa_cli.server.wires.chat_reply import CompletionsEncoder, finish_of
from moa_cli.server.wires.chat_request import ChatBody, parse_object
from moa_cli.server.wires.moa_object import together

# Fields of a chat completion that have another meaning on this wire, or none.
OF_A_CHAT = ("messages", "logprobs", "top_logprobs", "tools", "tool_choice", "functions")


@dataclass(frozen=True, kw_only=True)
class CompletionsBody:
    """The fields that a chat completion does not have. The other fields are read as a chat
    completion."""

    # Only text: token numbers mean nothing to a mixture.
    prompt: Annotated[
        AnyText | Annotated[tuple[AnyText, ...], Key(low=1, high=1)],
        Key("a text, or a list with one", blank=True),
    ]
    echo: Annotated[bool | None, Key("whether to put the prompt before the reply")] = None
    logprobs: Annotated[int | None, Key("of the tokens of the reply", 0, 20)] = None
    suffix: Annotated[Any, Key("not supported", only=("",))] = None
    best_of: Annotated[int | None, Key("must be n if given", 1, 16)] = None

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


@dataclass(frozen=True)
class CompletionsRequest:
    """A request that has been read. chat: the same request as a chat completion."""

    own: CompletionsBody
    chat: ChatBody


def parse(body: bytes, *, strict: bool = False) -> tuple[Asked, CompletionsRequest]:
    """The request in a body; see `wire.Wire`."""
    given = json_object(body)
    names = CompletionsBody.__dataclass_fields__
    own = read_body(CompletionsBody, {name: given.get(name) for name in names})
    rest = {k: v for k, v in given.items() if k not in names and k not in OF_A_CHAT}
    chat: dict[str, Any] = {**rest, "messages": [{"role": "user", "content": own.text}]}
    if own.logprobs is not None and own.echo:
        # Together these fields ask for the likelihood of a given text, which a mixture cannot
        # compute.
        refuse(
            "with `echo` would also cover the prompt: a mixture cannot compute the"
            " likelihood of a given text, so log-likelihood tasks are not supported",
            "logprobs",
        )
    if own.logprobs is not None:
        chat |= {"logprobs": True, "top_logprobs": own.logprobs}
    asked, parsed = parse_object(chat, strict=strict)
    if own.best_of is not None and own.best_of > asked.choices:
        refuse("must not be larger than `n`", "best_of")
    return asked, CompletionsRequest(own, parsed)


class TextEncoder(CompletionsEncoder):
    """A reply on this wire; see `wire.Encoder`. It cannot show proposals."""

    kind, prefix = "text_completion", "cmpl"

    def __init__(
        self, asked: Asked, request: CompletionsRequest, *, fingerprint: str, show_proposals: bool
    ) -> None:
        super().__init__(asked, request.chat, fingerprint)
        self._prompt = request.own.text if request.own.echo else ""
        # By choice: the text offset of the next token.
        self._places = [0] * asked.choices

    def take(self, event: Event, choice: int = 0) -> bytes:
        if (finished := self._end_before_report(event, choice)) is not None:
            usage = {"usage": None} if self._include_usage else {}
            return self._chunk([self._choice(choice, "", None, finish_of(finished))], **usage)
        if not isinstance(event, events.AggregatorDelta):
            return b""
        if not event.text and not event.token_logprobs:
            return b""
        text = event.text if choice in self._begun else self._prompt + event.text
        self._begun.add(choice)
        logprobs = self._logprobs(event.token_logprobs, choice)
        return self._chunk([self._choice(choice, text, logprobs)])

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return sse.event({**self._fields(self.kind), "choices": choices, **more})

    @staticmethod
    def _choice(
        number: int, text: str, logprobs: Mapping[str, Any] | None, finish: str | None = None
    ) -> dict[str, Any]:
        return {"text": text, "index": number, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, told: Sequence[str], choice: int) -> dict[str, Any] | None:
        """Log-probabilities in the form of this wire: parallel lists."""
        if not told:
            return None
        rows = [json.loads(row) for row in told]
        offsets = []
        for row in rows:
            offsets.append(self._places[choice])
            self._places[choice] += len(str(row.get("token", "")))
        return {
            "tokens": [row.get("token") for row in rows],
            "token_logprobs": [row.get("logprob") for row in rows],
            "top_logprobs": [_table(row.get("top_logprobs")) for row in rows],
            "text_offset": offsets,
        }

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The last chunks. The very last one holds the `moa` object."""
        whole = together(turns)
        last = self._after(whole)
        ends = [
            self._choice(number, refusal_of(turn) or "", None, finish_of(turn))
            for number, turn in enumerate(turns)
            if number not in self._ended
        ]
        if not self._include_usage:
            ends = ends or [self._choice(0, "", None)]
            return self._chunk(ends, **last) + b"data: [DONE]\n\n"
        told = self._chunk(ends, usage=None) if ends else b""
        told += self._chunk([], usage=self._usage(whole), **last)
        return told + b"data: [DONE]\n\n"

    def _whole_choice(self, number: int, turn: Turn) -> dict[str, Any]:
        text = self._prompt + (refusal_of(turn) or turn.reply or "")
        logprobs = self._logprobs(turn.token_logprobs, number)
        return self._choice(number, text, logprobs, finish_of(turn))


def _table(likely: object) -> dict[str, Any]:
    rows = likely if isinstance(likely, list) else []
    return {str(row.get("token")): row.get("logprob") for row in rows if isinstance(row, Mapping)}
