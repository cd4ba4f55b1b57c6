"""Reads a completion, in chunks or in one piece, and returns deltas.

The format is OpenAI's chat completions, as the providers really write it. The differences between
providers are handled here, so that the rest of the program does not know them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from moa_cli.clients import usage as usages
from moa_cli.clients.citations import CitationReader
from moa_cli.clients.thinking import ThinkSplitter, late_reasoning, opens_in_prompt
from moa_cli.clients.token_logprobs import likeliest, told_tokens
from moa_cli.clients.tool_calls import ToolCallReader
from moa_cli.clients.transport import ErrorObject
from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.text import WholeCharacters
from moa_cli.core.values import unchecked

_CALLS = ("tool_calls", "function_call")
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
# Finish reasons of an answer that failed: Zhipu, DeepSeek, vLLM, Together.
_BROKEN_ENDS = ("error", "network_error", "insufficient_system_resource", "abort", "aborted")
# The usual fields of a chunk and of a choice. Other fields may name sources, errors or a usage.
_USUAL = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier")
)
_USUAL_OF_CHOICE = frozenset(("index", "delta", "logprobs", "finish_reason"))
# In characters. A last chunk of at least this length that equals the whole text before it is a
# repetition. A shorter one may be new text ("ha", "ha").
_SURELY_REPEATED = 20


class CompletionReader:
    """A completion, as far as it has been read.

    model: the requested model. whole: whether the completion comes in one piece. bounds: the bounds
    of a believable usage.

    ended: whether a finish reason or the end mark has arrived. began: whether the endpoint has
    begun to answer. error: the error that ended the answer, to be raised after the deltas before
    it. before: deltas that come before the next one, usually none.
    """

    def __init__(
        self, model: str = "", *, whole: bool = False, bounds: usages.Bounds | None = None
    ) -> None:
        self.ended = False
        self.began = False
        self.error: ErrorObject | None = None
        self.before: list[Delta] = []
        self._asked = model
        self._answered_by = ""
        self._ended_by: str | None = None
        self._is_whole = whole
        self._splitter = ThinkSplitter(opened=not whole and opens_in_prompt(model))
        self._splitting = True
        self._characters = WholeCharacters()
        self._of_thoughts, self._of_refusal = WholeCharacters(), WholeCharacters()
        self._told_logprobs = False
        # The latest usage, and the latest one at the end of the answer.
        self._counted: Usage | None = None
        self._counted_whole: Usage | None = None
        self._sources = CitationReader()
        self._tools = ToolCallReader()
        # The pieces of text as they arrived; and of reasoning that arrived in fields of its own.
        self._raw: list[str] = []
        self._thoughts: list[str] = []
        self._length = 0
        self._bounds = bounds or usages.Bounds()
        # The fields of the next delta that are not empty.
        self._news: dict[str, Any] = {}

    @property
    def has_answer(self) -> bool:
        """Whether anything of the answer has come: a text, or a call of a tool."""
        return bool(self._raw) or bool(self._tools)

    @property
    def tells_usage(self) -> bool:
        """Whether the next delta holds a usage."""
        return "usage" in self._news

    def texts(self, payloads: Iterable[dict[str, Any]]) -> int:
        """Read the leading chunks that hold a piece of the answer's text and nothing else, as
        nearly all chunks do; returns how many were read."""
        if not self.takes_texts:
            return 0
        found = self._mere_texts(payloads)
        if found:
            self.add_texts(found)
        return len(found)

    def _mere_texts(self, payloads: Iterable[dict[str, Any]]) -> list[str]:
        """The texts of the leading chunks that hold nothing else."""
        found: list[str] = []
        # This runs for each token. Comparing types is faster than isinstance, and values from JSON
        # have no subclasses.
        for payload in payloads:
            choices = payload.get("choices")
            if type(choices) is not list or len(choices) != 1 or payload.get("usage"):
                break
            choice = choices[0]
            if type(choice) is not dict or choice.get("index") or choice.get("finish_reason"):
                break
            body = choice.get("delta")
            if type(body) is not dict or len(body) != 1 or choice.get("logprobs"):
                break
            text = body.get("content")
            if type(text) is not str or not text.isascii():
                break
            model = payload.get("model")
            if model and model != self._answered_by:
                break
            if not (payload.keys() <= _USUAL and choice.keys() <= _USUAL_OF_CHOICE):
                break
            found.append(text)
        return found

    @property
    def takes_texts(self) -> bool:
        """Whether `add_texts` may be called: no earlier text is held back."""
        return not (self._splitting or self._characters.half)

    def add_texts(self, texts: list[str]) -> None:
        """Read the texts of chunks that hold nothing else. They must not contain halves of
        surrogate pairs."""
        self.began = True
        told = [text for text in texts if text]
        self._raw += told
        text = "".join(told)
        self._length += len(text)
        if told:
            self._tell_text(text, len(told))

    def take_before(self) -> list[Delta]:
        """The deltas that come before the next one."""
        found, self.before = self.before, []
        return found

    def _end_delta(self) -> None:
        """End the current delta, so that the following text is in the next one: within a delta,
        text comes before tool calls."""
        self.before.append(self.delta())

    def _tell_text(self, text: str, pieces: int) -> None:
        if "tool_calls" in self._news:
            self._end_delta()
        news = self._news
        if "text" in news:
            news["text"] += text
        else:
            news["text"] = text
            pieces -= 1
        if pieces:
            news["merged"] = news.get("merged", 0) + pieces

    def chunk(self, payload: dict[str, Any]) -> bool:
        """Read a chunk, and the error in it, if there is one. Returns whether it holds a piece of
        the answer's text and nothing else."""
        if self.texts((payload,)):
            return True
        is_first = not self.began
        model = payload.get("model")
        if model != self._answered_by and model and type(model) is str:
            self._news["model"] = self._answered_by = model
        choices = payload.get("choices")
        if choices and type(choices) is list:
            choice = choices[0]
            if type(choice) is not dict or choice.get("index"):
                choice = _first_choice(choices)
            self._choice(choice, payload)
        else:
            self._look_for_error(payload)
        # Nearly all chunks of most endpoints have only these fields.
        if payload.keys() <= _USUAL:
            if payload.get("usage"):
                self._take_usage(payload)
        else:
            self._unusual(payload)
        if choices:
            self.began = True
            if self.error is not None:
                # The finish reason beside an error does not mean that the answer is complete.
                self._news.pop("finish_reason", None)
        return is_first and bool(self._mere_texts((payload,)))

    def _unusual(self, payload: dict[str, Any]) -> None:
        groq = payload.get("x_groq")
        if "error" in payload or "base_resp" in payload:
            self._look_for_error(payload)
        elif isinstance(groq, dict):
            self._look_for_error(groq)
        if payload.get("usage") or "x_groq" in payload or "cost" in payload:
            self._take_usage(payload)
        self._cite(payload)

    def _choice(self, choice: dict[str, Any], payload: dict[str, Any]) -> None:
        body = choice.get("delta")
        if "message" in choice and (self._is_whole or not _says(body)):
            self._message(choice, body)
        elif body and type(body) is dict:
            self._body(body, choice, payload)
        elif body is None and type(choice.get("text")) is str:
            # The form of completions on older servers.
            self._body({"content": choice["text"]}, choice, payload)
        logprobs = choice.get("logprobs")
        if logprobs is not None:
            self._take_logprobs(logprobs, choice)
        reason = choice.get("finish_reason")
        if reason:
            self._finished(reason, choice.get("error") or payload)
        if not choice.keys() <= _USUAL_OF_CHOICE:
            if choice.get("error") and self.error is None:
                self.error = ErrorObject(choice["error"], begun=self.began)
            if "usage" in choice:
                self._take_usage(payload)
            self._cite(choice)

    def _message(self, choice: dict[str, Any], delta: object) -> None:
        """Read a whole message. In a stream it repeats the text so far, and may hold more
        (Perplexity)."""
        message = choice["message"]
        if type(message) is not dict or not _says(message):
            message = delta
        if type(message) is not dict:
            return
        before = "".join(self._raw)
        content = message.get("content")
        self._cite(message)
        called = {name: message.get(name) for name in _CALLS}
        message = {name: value for name, value in message.items() if name not in _CALLS}
        if before and type(content) is str:
            rest = content[len(before) :] if content.startswith(before) else ""
            message = {"content": rest}
        self._body(message, choice, {})
        if not self._tools:
            self._call_tools(called, whole=True)

    def _body(self, body: dict[str, Any], choice: dict[str, Any], payload: dict[str, Any]) -> None:
        content = body.get("content")
        thought = ""
        if type(content) is str:
            text = content
            # Most chunks hold only content, and perhaps a role.
            more = len(body) > 1
        else:
            text, thought = ("", "") if content is None else self._parts(content)
            more = True
        if more:
            thought += self._fields(body)
        if text:
            if choice.get("finish_reason") and self._repeats(text, payload):
                text = ""
            self._raw.append(text)
            self._length += len(text)
        text = self._characters.take(text)
        if thought:
            thought = self._of_thoughts.take(thought)
            self._thoughts.append(thought)
        if self._splitting:
            if thought:
                self._splitter.expect_answer()
            if text:
                split = self._splitter.feed(text)
                text, thought = split.text, thought + split.reasoning
                self._splitting = not self._splitter.passing
        news = self._news
        if thought and "tool_calls" in news:
            self._end_delta()
            news = self._news
        if text:
            self._tell_text(text, 1)
            news = self._news
        if thought:
            if "reasoning" in news:
                news["reasoning"] += thought
                news["merged"] = news.get("merged", 0) + 1
            else:
                news["reasoning"] = thought
        if more:
            self._call_tools(body)

    def _fields(self, body: dict[str, Any]) -> str:
        """Read the fields of a message beside its content; returns the reasoning in them."""
        thought = ""
        for name in _REASONING:
            if body.get(name):
                # Only the first one, because some endpoints repeat it in several fields.
                thought = _text(body[name])
                break
        if not thought and body.get("reasoning_details"):
            thought = _details(body["reasoning_details"])
        if body.get("refusal"):
            self._refuse(body["refusal"])
        self._cite(body)
        return thought

    def _call_tools(self, body: dict[str, Any], *, whole: bool = False) -> None:
        if body.get("tool_calls") or body.get("function_call"):
            pieces = self._tools.read(body, whole=whole)
            if pieces:
                self._news["tool_calls"] = self._news.get("tool_calls", ()) + pieces

    def _refuse(self, words: object) -> None:
        told = self._of_refusal.take(_text(words))
        self._news["refusal"] = self._news.get("refusal", "") + told

    def _cite(self, holder: dict[str, Any]) -> None:
        if self._sources.take(holder):
            self._news["citations"] = self._sources.citations

    def _parts(self, content: object) -> tuple[str, str]:
        """Text and reasoning of content that is a list of parts (Mistral)."""
        if not isinstance(content, list):
            return _text(content), ""
        text, thought = "", ""
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else ""
            if kind in ("thinking", "reasoning", "reasoning_text", "thought"):
                # Mistral's name of the field, others', and that of Databricks.
                names = ("thinking", "reasoning", "summary")
                inner = next((part[name] for name in names if name in part), part)
                thought += _text(inner)
            elif kind == "refusal":
                self._refuse(part.get("refusal"))
            else:
                text += _text(part)
        return text, thought

    def _repeats(self, text: str, payload: dict[str, Any]) -> bool:
        """Whether the last chunk of a stream repeats the whole text before it."""
        if self._is_whole or len(text) != self._length or text != "".join(self._raw):
            return False
        kind = str(payload.get("object", "chunk"))
        return not kind.endswith("chunk") or (len(self._raw) > 2 and len(text) >= _SURELY_REPEATED)

    def _take_logprobs(self, logprobs: object, choice: dict[str, Any]) -> None:
        tokens = told_tokens(logprobs, choice)
        if not tokens:
            return
        if not self._told_logprobs and "text" in self._news:
            # Only for the first token of the answer, not for reasoning before it.
            found = likeliest(tokens[0])
            if found is not None:
                self._news["logprobs"] = found
                self._told_logprobs = True
        told = tuple(map(json.dumps, tokens))
        self._news["token_logprobs"] = self._news.get("token_logprobs", ()) + told

    def _finished(self, reason: object, error: object) -> None:
        if str(reason).lower() in _BROKEN_ENDS:
            if isinstance(error, dict) and "choices" in error and not error.get("error"):
                error = {"message": f"the answer ended with `{reason}`", "code": 503}
            self.error = ErrorObject(error, begun=self.began)
        elif isinstance(reason, str):
            self._news["finish_reason"] = self._ended_by = reason
            self.ended = True

    def _look_for_error(self, payload: dict[str, Any]) -> None:
        if self.error is None and error_in(payload):
            self.error = ErrorObject(payload, begun=self.began)

    def _take_usage(self, payload: dict[str, Any]) -> None:
        # A token has at least one byte, and a character at most four.
        self._bounds.answer = 4 * (self._length + sum(map(len, self._thoughts)))
        told = usages.usage_from(payload, self._bounds)
        if told is None:
            if self._counted is not None:
                self._counted = usages.with_cost(self._counted, payload)
                self._news["usage"] = self._counted
            return
        if not (self.ended or self._is_whole):
            told = usages.without_interim_cost(told)
        elif self._counted_whole is not None:
            told = usages.completed(told, self._counted_whole)
        self._news["usage"] = self._counted = told
        if self.ended:
            self._counted_whole = told

    def delta(self) -> Delta:
        """What has arrived since the last delta."""
        news, self._news = self._news, {}
        return unchecked(Delta, **news)

    def rest(self) -> Delta:
        """The text that was held back, at the end of the answer. Or the whole answer, if only its
        end shows which part of it was reasoning."""
        held = self._splitter.feed("\ufffd") if self._characters.half else None
        rest = self._splitter.flush()
        if held is not None:
            rest = Delta(text=held.text + rest.text, reasoning=held.reasoning + rest.reasoning)
        if self._splitter.parted:
            return rest
        text = WholeCharacters().take("".join(self._raw))
        surely = self._ended_by == "length" and opens_in_prompt(self._asked)
        if self._splitter.unclosed and self.ended and not surely and not self._tools:
            # The text was the answer and not reasoning. The exception, `surely`: a model that
            # always reasons was cut off within its reasoning.
            return Delta(text=text, replaces=True)
        late = late_reasoning(text, f"{self._asked} {self._answered_by}")
        if late is None or self._splitter.unclosed:
            return rest
        return Delta(text=late[1], reasoning="".join(self._thoughts) + late[0], replaces=True)


def whole(
    payload: dict[str, Any], model: str = "", bounds: usages.Bounds | None = None
) -> tuple[Delta, ErrorObject | None]:
    """A completion that came in one piece, as one delta, and the error in it, if there is one.

    model: the requested model. bounds: the bounds of a believable usage.
    """
    reader = CompletionReader(model, whole=True, bounds=bounds)
    reader.chunk(payload)
    first, rest = reader.delta(), reader.rest()
    replaced = rest.replaces
    return (
        Delta(
            text=rest.text if replaced else first.text + rest.text,
            reasoning=rest.reasoning if replaced else first.reasoning + rest.reasoning,
            usage=first.usage,
            finish_reason=first.finish_reason or "stop",
            model=first.model,
            logprobs=first.logprobs,
            refusal=first.refusal,
            tool_calls=first.tool_calls,
            token_logprobs=first.token_logprobs,
            citations=first.citations,
        ),
        reader.error,
    )


def error_in(payload: dict[str, Any]) -> bool:
    """Whether an object under a good status is an error, in any of the shapes that providers
    give it: `error`, `errors`, `object: error` (vLLM, SGLang), `detail` (FastAPI), `base_resp`
    (MiniMax), `error_code` (FastChat, Baidu), `success: false` (Cloudflare)."""
    error = payload.get("error")
    if error and not (isinstance(error, dict) and _is_success(error)):
        return True
    if payload.get("object") == "error" or payload.get("type") == "error":
        return True
    base = payload.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return True
    if payload.get("success") is False or payload.get("error_code") or payload.get("error_msg"):
        return True
    if payload.get("choices"):
        return False
    if payload.get("errors") or payload.get("detail"):
        return True
    code = payload.get("code") or payload.get("statusCode") or payload.get("status")
    bad = code not in (None, 0, 200, "0", "200", "success", "ok") and code != payload.get("status")
    bad = bad or (isinstance(code, int) and code >= 400)
    return bool(bad and (payload.get("message") or payload.get("msg")))


def _is_success(error: dict[str, Any]) -> bool:
    """Whether an `error` field reports success: `{"code": 0, "message": ""}`."""
    return error.get("code") in (0, "0", 200) and not error.get("type")


def _first_choice(choices: list[Any]) -> dict[str, Any]:
    """The choice with the index 0; no others were requested."""
    tables = (choice for choice in choices if isinstance(choice, dict))
    return next((choice for choice in tables if not choice.get("index")), {})


def _says(body: object) -> bool:
    """Whether a delta or a message has any content."""
    return isinstance(body, dict) and any(
        value for name, value in body.items() if name not in ("role", "name")
    )


def _text(content: object) -> str:
    """Content as text: a string, or parts that hold text."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text") or content.get("content"))
    return ""


def _details(details: object) -> str:
    """The readable part of `reasoning_details`: texts and summaries, without encrypted parts."""
    rows = details if isinstance(details, list) else [details]
    return "".join(
        _text(row.get("text") or row.get("summary")) for row in rows if isinstance(row, dict)
    )
