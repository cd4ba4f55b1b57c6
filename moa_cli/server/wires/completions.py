"""The wire of `POST /v1/completions`, for clients that only know texts.

A prompt is asked as the message of a user. Source: OpenAI's API reference, "Create completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.datastructures import Headers

from moa_cli.core import events
from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.core.outcomes import refusal_of
from moa_cli.core.unique import unique_name
from moa_cli.core.values import Key
from moa_cli.server.errors import ApiError
from moa_cli.server.wires import sse
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.bodies import json_object, read_body, refuse
from moa_cli.server.wires.chat_reply import (
    EndedReplies,
    Envelope,
    finish_of,
    sources_of,
    told_usage,
)
from moa_cli.server.wires.chat_request import ChatBody, parse_object
from moa_cli.server.wires.moa_object import ledger, together

# Of one prompt; a number of tokens stands for none that a mixture could read.
_PROMPT = Key("a text, or a list with one", blank=True)
# Fields of a chat completion that have another meaning here, or none.
OF_A_CHAT = ("messages", "logprobs", "top_logprobs", "tools", "tool_choice", "functions")


@dataclass(frozen=True, kw_only=True)
class CompletionsBody:
    """What a body has that a chat completion has not; the rest is read as one."""

    prompt: Annotated[
        Annotated[str, Key(blank=True)]
        | Annotated[tuple[Annotated[str, Key(blank=True)], ...], Key(low=1, high=1)],
        _PROMPT,
    ]
    echo: Annotated[bool | None, Key("whether the prompt stands before the reply")] = None
    logprobs: Annotated[int | None, Key("of the tokens of the reply", 0, 20)] = None
    suffix: Annotated[Any, Key("not supported", only=("",))] = None
    best_of: Annotated[int | None, Key("must be n if given", 1, 16)] = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


@dataclass(frozen=True)
class CompletionsRequest:
    """A request as it was read. chat: the same as a chat completion."""

    own: CompletionsBody
    chat: ChatBody


class Completions:
    """See `wire.Wire`. strict: whether fields without an effect are refused."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, CompletionsRequest]:
        """The request in a body."""
        given = json_object(body)
        names = CompletionsBody.__dataclass_fields__
        own = read_body(CompletionsBody, {name: given.get(name) for name in names})
        rest = {k: v for k, v in given.items() if k not in names and k not in OF_A_CHAT}
        chat: dict[str, Any] = {**rest, "messages": [{"role": "user", "content": own.text}]}
        if own.logprobs is not None and own.echo:
            # They would be asked for to learn how likely a text is, which no model is asked here.
            refuse(
                "with `echo` would be of the prompt, too: a mixture cannot tell how likely a text"
                " is, so tasks of log-likelihood cannot be run",
                "logprobs",
            )
        if own.logprobs is not None:
            chat |= {"logprobs": True, "top_logprobs": own.logprobs}
        asked, parsed = parse_object(chat, strict=self._strict)
        if own.best_of is not None and own.best_of > asked.choices:
            refuse("must not be larger than `n`", "best_of")
        return asked, CompletionsRequest(own, parsed)

    def encoder(
        self, asked: Asked, body: CompletionsRequest, *, fingerprint: str, show_proposals: bool
    ) -> CompletionsEncoder:
        """What writes the reply. Proposals have no place on this wire."""
        envelope = Envelope(model=asked.model, fingerprint=fingerprint, id=f"cmpl-{unique_name()}")
        return CompletionsEncoder(envelope, asked, body)


class CompletionsEncoder:
    """A reply on this wire; see `wire.Encoder`."""

    def __init__(self, envelope: Envelope, asked: Asked, request: CompletionsRequest) -> None:
        self._envelope = envelope
        self._asked = asked
        options = request.chat.stream_options
        self._include_usage = bool(options and options.include_usage)
        self._prompt = request.own.text if request.own.echo else ""
        # Where the next token of each choice begins.
        self._places = [0] * asked.choices
        self._begun: set[int] = set()
        self._ended = EndedReplies()

    def take(self, event: Event, choice: int = 0) -> bytes:
        """The chunk of the next event."""
        if (finished := self._ended.take(event, choice)) is not None:
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
        return sse.event({**self._envelope.fields("text_completion"), "choices": choices, **more})

    @staticmethod
    def _choice(
        number: int, text: str, logprobs: Mapping[str, Any] | None, finish: str | None = None
    ) -> dict[str, Any]:
        return {"text": text, "index": number, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, told: Sequence[str], choice: int) -> dict[str, Any] | None:
        """Log-probabilities in the form of this wire: lists side by side."""
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
        """The last chunks. The `moa` object is on the very last."""
        whole = together(turns)
        last: dict[str, Any] = {**sources_of(whole), "moa": ledger(whole, self._asked.ignored)}
        ends = [
            self._choice(number, refusal_of(turn) or "", None, finish_of(turn))
            for number, turn in enumerate(turns)
            if number not in self._ended
        ]
        if not self._include_usage:
            ends = ends or [self._choice(0, "", None)]
            return self._chunk(ends, **last) + b"data: [DONE]\n\n"
        told = self._chunk(ends, usage=None) if ends else b""
        told += self._chunk([], usage=told_usage(self._asked, whole), **last)
        return told + b"data: [DONE]\n\n"

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """The whole reply of finished turns."""
        whole = together(turns)
        choices = [
            self._choice(
                number,
                self._prompt + (refusal_of(turn) or turn.reply or ""),
                self._logprobs(turn.token_logprobs, number),
                finish_of(turn),
            )
            for number, turn in enumerate(turns)
        ]
        return {
            **self._envelope.fields("text_completion"),
            "choices": choices,
            "usage": told_usage(self._asked, whole),
            **sources_of(whole),
            "moa": ledger(whole, self._asked.ignored),
        }

    def fail(self, error: ApiError) -> bytes:
        """The error, without the mark of a good end."""
        return sse.event(error.body())

    def comment(self, text: str) -> bytes:
        """A sign of life."""
        return sse.comment(text)


def _table(likely: object) -> dict[str, Any]:
    rows = likely if isinstance(likely, list) else []
    return {str(row.get("token")): row.get("logprob") for row in rows if isinstance(row, Mapping)}
