"""The SSE decoder: bytes to server-sent events, and these to the deltas of a completion.

The events are the chunks of OpenAI's chat completions as the providers write them in fact.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from moa_cli.clients.thinking import ThinkSplitter
from moa_cli.clients.transport import ErrorObject
from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BadResponse, ConnectionLost

# An event is one JSON object of a few tokens; far beyond that nobody speaks this protocol.
_LONGEST_LINE = 16 * 1024 * 1024
_LINE_END = re.compile(r"\r\n|\n|\r")
# More than this for one call is no count, and no cost.
_MOST_TOKENS, _MOST_USD = 2 * 10**7, 10**4
# Bounds of what is a log-probability: some say -9999 for impossible, or round certainty up.
_MOST_NATS = 10**6
_DECODER = json.JSONDecoder()


class SseDecoder:
    """Bytes to server-sent events (name, data) as they come (WHATWG HTML, section 9.2).

    An event without data is none. No I/O: whoever reads the connection feeds what it read.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that are whole with this chunk. Raises BadResponse for an endless line."""
        pending = self._pending + chunk
        if len(pending) > _LONGEST_LINE:
            raise BadResponse("the endpoint sent a line of over 16 MB")
        carriage = pending.rfind(b"\r")
        # A CR at the very end may be the first half of a CRLF.
        if carriage == len(pending) - 1:
            carriage = pending.rfind(b"\r", 0, carriage)
        cut = max(pending.rfind(b"\n"), carriage) + 1
        self._pending = pending[cut:]
        # Whole lines, so no letter is cut in two.
        text = pending[:cut].decode("utf-8", "replace")
        # At CR, LF and CRLF only: str.splitlines also splits at U+2028, which is allowed inside
        # a JSON string.
        lines = text.split("\n") if carriage < 0 else _LINE_END.split(text)
        return self._events(lines[:-1])

    def end(self) -> list[tuple[str, str]]:
        """The last event, which needs no blank line after it."""
        last = self._pending.rstrip(b"\r").decode("utf-8", "replace")
        self._pending = b""
        return self._events([last, ""])

    def _events(self, lines: list[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for line in lines:
            # Nearly all lines are one of these two.
            if line.startswith("data: "):
                self._data.append(line[6:])
            elif not line:
                if self._data:
                    found.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
            else:
                self._field(line)
        return found

    def _field(self, line: str) -> None:
        key, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            self._data.append(value)
        elif key == "event":
            self._name = value


async def deltas(
    chunks: AsyncIterator[bytes],
    *,
    merged: bool = False,
    watch: Callable[[str, str], None] | None = None,
) -> AsyncGenerator[Delta, None]:
    """The deltas of a streamed chat completion.

    merged: one for all that came in one chunk, which costs less where nobody counts them.
    watch: called with the name and the data of each event.
    Raises ErrorObject for an error object in the stream, ConnectionLost where it ends before
    a finish reason or the end mark, BadResponse for what is no JSON or no completion.
    """
    decoder, reading = SseDecoder(), _Reading()
    async for chunk in chunks:
        events = decoder.feed(chunk)
        if watch is not None:
            for name, data in events:
                watch(name, data)
        for delta in reading.take(events, merged=merged):
            yield delta
        if reading.done:
            break
    else:
        for delta in reading.take(decoder.end(), merged=merged):
            yield delta
    rest = reading.flush()
    if rest.text or rest.reasoning:
        yield rest
    if not reading.ended:
        raise ConnectionLost("the answer broke off before its end")


class _Reading:
    """A completion as far as it has been read.

    ended: a finish reason or the end mark has come; done: the mark has.
    """

    def __init__(self) -> None:
        self.ended = False
        self.done = False
        self._splitter = ThinkSplitter()
        self._splitting = True
        self._told_logprobs = False
        self._reset()

    def _reset(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._model: str | None = None
        self._logprobs: tuple[tuple[str, float], ...] | None = None

    def take(self, events: list[tuple[str, str]], *, merged: bool) -> Iterator[Delta]:
        """The deltas of the next events. Raises, behind them, why there are no more, if so."""
        error: Exception | None = None
        taken = 0
        try:
            for name, data in events:
                if not data.startswith("{") and data.strip() == "[DONE]":
                    self.ended = self.done = True
                    break
                self.chunk(_payload(name, data))
                taken += 1
                if not merged:
                    yield self.delta()
        except (ErrorObject, BadResponse) as raised:
            error = raised
        if merged and taken:
            yield self.delta()
        if error is not None:
            raise error

    def chunk(self, payload: dict[str, Any]) -> None:
        """Take what one chunk tells. Raises ErrorObject if that is an error."""
        # Once a token: types are compared, since what comes out of JSON has no subclasses.
        model = payload.get("model")
        if model and type(model) is str:
            self._model = model
        choices = payload.get("choices")
        if choices and type(choices) is list and type(choices[0]) is dict:
            choice = choices[0]
            body = choice.get("delta") or choice.get("message")
            if type(body) is dict:
                self._body(body)
            logprobs = choice.get("logprobs")
            if logprobs and not self._told_logprobs:
                self._first_token(logprobs)
            reason = choice.get("finish_reason")
            if reason:
                self._finished(reason, choice.get("error") or payload)
        if "usage" in payload or "x_groq" in payload:
            self._usage = usage_from(payload) or self._usage

    def _body(self, body: dict[str, Any]) -> None:
        content = body.get("content")
        text = content if type(content) is str else _text(content)
        thought = ""
        if "reasoning_content" in body or "reasoning" in body:
            thought = _text(body.get("reasoning_content")) or _text(body.get("reasoning"))
        if self._splitting:
            split = self._splitter.feed(text)
            text, thought = split.text, thought + split.reasoning
            self._splitting = not self._splitter.passing
        self._text.append(text)
        if thought:
            self._reasoning.append(thought)

    def _first_token(self, logprobs: object) -> None:
        """Take those of the first token of the answer, not of reasoning before it."""
        if any(self._text):
            self._logprobs = _top_logprobs(logprobs)
            self._told_logprobs = self._logprobs is not None

    def _finished(self, reason: object, error: object) -> None:
        if reason == "error":
            raise ErrorObject(error)
        if isinstance(reason, str):
            self._reason = reason
            self.ended = True

    def delta(self) -> Delta:
        """What has come since the last one."""
        delta = Delta(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            usage=self._usage,
            finish_reason=self._reason,
            model=self._model,
            logprobs=self._logprobs,
        )
        self._reset()
        return delta

    def flush(self) -> Delta:
        """What was held back, at the end of the answer."""
        return self._splitter.flush()


def _payload(name: str, data: str) -> dict[str, Any]:
    try:
        payload = _json(data)
    except ValueError:
        if name == "error":
            raise ErrorObject(data) from None
        raise BadResponse("the endpoint sent an event that is no JSON") from None
    if name == "error":
        raise ErrorObject(payload)
    if type(payload) is not dict:
        raise BadResponse("the endpoint sent an event that is no completion chunk")
    if payload.get("error"):
        raise ErrorObject(payload)
    return payload


def _json(data: str) -> Any:
    if data.startswith("{"):
        # What json.loads would do, without looking for white space: a third less for a token.
        value, end = _DECODER.raw_decode(data)
        if end == len(data):
            return value
    return json.loads(data)


def _text(content: object) -> str:
    """Content as text: a string, or a list of parts that hold text."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text"))
    return ""


def _top_logprobs(logprobs: object) -> tuple[tuple[str, float], ...] | None:
    """The likeliest tokens in the first place: OpenAI's `content[0].top_logprobs`, a list of
    `{token, logprob}`, or Together's `top_logprobs[0]`, a table by token. None if not told."""
    if not isinstance(logprobs, dict):
        return None
    content, tables = logprobs.get("content"), logprobs.get("top_logprobs")
    pairs: list[tuple[object, object]] = []
    if isinstance(content, list) and content and isinstance(content[0], dict):
        told = content[0].get("top_logprobs")
        rows = told if isinstance(told, list) else []
        pairs = [(row.get("token"), row.get("logprob")) for row in rows if isinstance(row, dict)]
    elif isinstance(tables, list) and tables and isinstance(tables[0], dict):
        pairs = list(tables[0].items())
    found = tuple(
        (token, float(value))
        for token, value in pairs
        if isinstance(token, str) and isinstance(value, int | float) and -_MOST_NATS <= value < 1
    )
    return found or None


def usage_from(payload: dict[str, Any]) -> Usage | None:
    """The usage that a chunk or a completion tells, wherever the provider puts it."""
    groq = payload.get("x_groq")
    told = payload.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
    if not isinstance(told, dict):
        return None

    prompt = _count(told, "prompt_tokens", "input_tokens")
    completion = _count(told, "completion_tokens", "output_tokens")
    cost = _cost(told)
    if prompt is None and completion is None:
        return None
    cached = _count(told.get("prompt_tokens_details"), "cached_tokens")
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        reasoning_tokens=_count(told.get("completion_tokens_details"), "reasoning_tokens") or 0,
        cached_tokens=cached or _count(told, "prompt_cache_hit_tokens") or 0,
        calls=1,
        cost=cost or 0.0,
        unpriced_calls=int(cost is None),
    )


def _count(table: object, *names: str) -> int | None:
    """The first of these counts that is one; some endpoints write them as 12.0 or "12"."""
    for name in names:
        value = table.get(name) if isinstance(table, dict) else None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            return value
    return None


def _cost(told: dict[str, Any]) -> float | None:
    """What OpenRouter says that the call cost, in USD; with a key of the user's own at the
    model's provider, that one's bill too."""
    cost = _amount(told.get("cost"))
    details = told.get("cost_details")
    if cost is not None and told.get("is_byok") is True and isinstance(details, dict):
        cost += _amount(details.get("upstream_inference_cost")) or 0.0
    return cost


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST_USD else None


def whole(payload: dict[str, Any]) -> Delta:
    """A completion that came in one piece, as one delta."""
    reading = _Reading()
    reading.chunk(payload)
    first, rest = reading.delta(), reading.flush()
    return Delta(
        text=first.text + rest.text,
        reasoning=first.reasoning + rest.reasoning,
        usage=first.usage,
        finish_reason=first.finish_reason or "stop",
        model=first.model,
        logprobs=first.logprobs,
    )
