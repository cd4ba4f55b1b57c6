"""What is in the stream: odd frames, odd JSON, odd text, errors midway, answers that are none."""

from __future__ import annotations

from tests.faults.fault import Fault, answered, lost
from tests.faults.script import (
    COMPLETION,
    DONE,
    ENDING,
    EVENTS,
    PARTIAL,
    POISON,
    ROLE,
    SSE,
    WORDS,
    counted,
    deflated,
    encoded,
    event,
    finish,
    part,
    said,
    stream,
    thought,
    whole,
    zipped,
)

_BODY = b"".join(EVENTS)
_TEXT = _BODY.decode()
_PIECES = ("Rain ", "is ", "water.")
_EMPTY_REASONS = b"".join(event(part({"content": piece}, "")) for piece in _PIECES)


def _reframed(old: str, new: str) -> bytes:
    return _TEXT.replace(old, new).encode()


def _ending(*events: bytes) -> tuple[bytes, ...]:
    """Events, and the usual end of an answer."""
    return (ROLE, *events, *ENDING)


FRAMES: list[Fault] = [
    answered("no space", "no space after `data:`", stream(_reframed("data: ", "data:"))),
    answered("CRLF", "lines that end in CRLF", stream(_reframed("\n", "\r\n"))),
    answered("CR", "lines that end in CR", stream(_reframed("\n", "\r"))),
    answered("BOM", "a byte order mark before the first line", stream(b"\xef\xbb\xbf" + _BODY)),
    answered(
        "empty data",
        "empty data between the words",
        stream(_reframed("data: {", "data:\n\ndata: {")),
    ),
    answered(
        "other fields",
        "fields beside `data`",
        stream(_reframed("data: ", "event: message\nid: 7\nretry: 9\ndata: ")),
    ),
    answered(
        "data in lines",
        "an event over several lines of data",
        stream(_reframed('{"object"', '{\ndata: "object"')),
    ),
    answered("no last line end", "no line end behind the last event", stream(_BODY.rstrip())),
    answered("one piece", "all events in one piece", stream(_BODY)),
    answered(
        "bytes",
        "each byte in a piece of its own",
        stream(*[_BODY[at : at + 1] for at in range(len(_BODY))]),
    ),
    answered(
        "JSON lines",
        "a line of JSON for each chunk, and no `data:`",
        stream(_TEXT.replace("data: ", "").replace("\n\n", "\n").encode()),
    ),
    answered("DONE twice", "`[DONE]` twice", stream(*EVENTS, DONE)),
    answered("text after DONE", "text behind `[DONE]`", stream(*EVENTS, said(POISON))),
    answered(
        "long line",
        "one word of a megabyte",
        stream(*_ending(said("x" * 1_000_000))),
        answer="x" * 1_000_000,
    ),
    lost(
        "endless line",
        "a line of over 16 MB",
        stream(b"data: " + b"x" * 17_000_000),
        "BadResponse",
        "the endpoint sent an event larger than 16 MB",
    ),
]
MALFORMED: list[Fault] = [
    lost(
        "bad JSON",
        "an event that is not JSON",
        stream(event("{nonsense")),
        "BadResponse",
        "the endpoint sent an event that is not JSON",
    ),
    lost(
        "bad JSON after text",
        "an event that is not JSON, after text",
        stream(*PARTIAL, event("{nonsense")),
        "BadResponse",
        "the endpoint sent an event that is not JSON",
        begun=True,
    ),
    lost(
        "half JSON",
        "half an event, and a good end",
        stream(*PARTIAL, b'data: {"choices": [{'),
        "ConnectionLost",
        "the answer ended early",
        again=True,
        begun=True,
    ),
    lost(
        "true",
        "`true` in place of a chunk",
        stream(event("true")),
        "BadResponse",
        "the endpoint sent an event that is not a completion chunk",
    ),
    lost(
        "list",
        "a list in place of a chunk",
        stream(event("[]")),
        "BadResponse",
        "the endpoint sent an event that is not a completion chunk",
    ),
    lost(
        "text",
        "a text in place of a chunk",
        stream(event('"hello"')),
        "BadResponse",
        "the endpoint sent an event that is not a completion chunk",
    ),
    lost(
        "deep",
        "JSON that is nested a hundred thousand deep",
        stream(event('{"choices":' + "[" * 100_000)),
        "BadResponse",
        "the endpoint sent an event that is not JSON",
    ),
    lost(
        "deep after text",
        "JSON that is nested a hundred thousand deep, after text",
        stream(*PARTIAL, event('{"choices":' + "[" * 100_000)),
        "BadResponse",
        "the endpoint sent an event that is not JSON",
        begun=True,
    ),
    lost(
        "deep whole",
        "JSON that is nested a hundred thousand deep, as a whole answer",
        whole('{"choices":' + "[" * 100_000),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "long number",
        "a number of ten thousand digits",
        stream(event(f'{{"choices": [], "created": {"9" * 10_000}}}')),
        "BadResponse",
        "the endpoint sent an event that is not JSON",
    ),
    answered(
        "NaN",
        "NaN where a number is meant",
        stream(_reframed('"index": 0', '"index": 0, "score": NaN')),
    ),
    answered(
        "null fields",
        "null in all fields that may be left out",
        stream(
            event({"choices": None, "model": None, "usage": None}),
            ROLE,
            event({"choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
            event(part({"content": None, "tool_calls": None, "refusal": None})),
            *_ending(*WORDS),
        ),
    ),
    answered(
        "numbers as text",
        "counts of tokens as text",
        stream(ROLE, *WORDS, finish(), counted("9", "3"), DONE),
    ),
    answered(
        "parts",
        "content as a list of parts",
        stream(*_ending(event(part({"content": [{"type": "text", "text": "Rain is water."}]})))),
    ),
    answered(
        "choices",
        "several choices, of which the first counts",
        stream(
            *_ending(
                event(
                    {
                        "choices": [
                            {"index": 1, "delta": {"content": POISON}},
                            {"index": 0, "delta": {"content": "Rain is water."}},
                        ]
                    }
                )
            )
        ),
    ),
    answered(
        "other choice",
        "chunks of a choice that was not asked for",
        stream(
            ROLE, event({"choices": [{"index": 1, "delta": {"content": POISON}}]}), *WORDS, *ENDING
        ),
    ),
    answered(
        "said again",
        "the whole answer again in the last chunk",
        stream(
            ROLE,
            *WORDS,
            said("Really: it is."),
            event(part({"content": "Rain is water.Really: it is."}, "stop")),
            counted(),
            DONE,
        ),
        answer="Rain is water.Really: it is.",
    ),
    answered(
        "message",
        "`message` in place of `delta`",
        stream(
            *_ending(event({"choices": [{"index": 0, "message": {"content": "Rain is water."}}]}))
        ),
    ),
    answered(
        "completion",
        "`text` in place of `delta`",
        stream(*_ending(event({"choices": [{"index": 0, "text": "Rain is water."}]}))),
    ),
    answered(
        "halves",
        "a character cut in two halves of a surrogate pair",
        stream(*_ending(said("Rain \ud83d"), said("\ude00 is water."))),
        answer="Rain \U0001f600 is water.",
    ),
    answered(
        "half",
        "half a surrogate pair alone",
        stream(*_ending(said("Rain \ud83d"), said(" is water."))),
        answer="Rain \ufffd is water.",
    ),
    answered(
        "separators",
        "line separators inside a text",
        stream(
            *_ending(
                event(
                    '{"choices": [{"index": 0, "delta": {"content": "Rain\u2028is\u0085water."}}]}'
                )
            )
        ),
        answer="Rain\u2028is\u0085water.",
    ),
    answered(
        "controls",
        "control sequences in the text",
        stream(*_ending(said("Rain \x1b[2J\x1b]0;x\x07is water."))),
        answer="Rain \x1b[2J\x1b]0;x\x07is water.",
    ),
    answered(
        "NUL",
        "a NUL in the text",
        stream(*_ending(said("Rain\0 is water."))),
        answer="Rain\0 is water.",
    ),
]
ERRORS_MIDWAY: list[Fault] = [
    lost(
        "error first",
        "an error object as the first event",
        stream(event({"error": {"message": POISON}})),
        "ServerFailed",
        f"lab failed: {POISON}",
        again=True,
    ),
    lost(
        "error 429",
        "an error object with the code 429 as the first event",
        stream(event({"error": {"message": POISON, "code": 429}})),
        "RateLimited",
        f"lab: too many requests: {POISON}",
        again=True,
    ),
    lost(
        "error key",
        "an error object for a wrong key as the first event",
        stream(
            event({"error": {"message": f"Incorrect API key {POISON}", "code": "invalid_api_key"}})
        ),
        "AuthenticationFailed",
        f"lab refused the API key: Incorrect API key {POISON} (invalid_api_key)",
    ),
    lost(
        "error after text",
        "an error object after text",
        stream(*PARTIAL, event({"error": {"message": POISON}})),
        "ServerFailed",
        f"lab failed: {POISON}",
        again=True,
        begun=True,
    ),
    lost(
        "error event",
        "`event: error` (Anthropic)",
        stream(b'event: error\ndata: {"error": {"message": "Overloaded E-POISON-17"}}\n\n'),
        "ServerFailed",
        f"lab failed: Overloaded {POISON}",
        again=True,
    ),
    lost(
        "error event after text",
        "`event: error` with words, after text",
        stream(*PARTIAL, b"event: error\ndata: worker died E-POISON-17\n\n"),
        "ServerFailed",
        f"lab failed: worker died {POISON}",
        again=True,
        begun=True,
    ),
    lost(
        "error field",
        "a field `error:` (llama.cpp)",
        stream(b'error: {"code": 500, "message": "E-POISON-17"}\n\n'),
        "ServerFailed",
        f"lab failed (500): {POISON}",
        again=True,
    ),
    lost(
        "error finish",
        "the finish reason `error`",
        stream(*PARTIAL, finish("error"), DONE),
        "ServerFailed",
        "lab failed (503): the answer ended with `error`",
        again=True,
        begun=True,
    ),
    lost(
        "error in choice",
        "an error in a choice (OpenRouter)",
        stream(
            event(
                {
                    "choices": [
                        {
                            "index": 0,
                            "delta": {},
                            "finish_reason": "error",
                            "error": {"code": 502, "message": POISON},
                        }
                    ]
                }
            )
        ),
        "ServerFailed",
        f"lab failed (502): {POISON}",
        again=True,
    ),
]
ENCODINGS: list[Fault] = [
    answered("gzip", "a stream in gzip", encoded("gzip", zipped(_BODY))),
    answered("deflate", "a stream in deflate", encoded("deflate", deflated(_BODY))),
    lost(
        "broken gzip",
        "what says gzip, and is none",
        encoded("gzip", b"nonsense " * 9),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "cut gzip",
        "gzip that ends early",
        encoded("gzip", zipped(_BODY)[:40]),
        "ConnectionLost",
        "the answer ended early",
        again=True,
    ),
    lost(
        "brotli",
        "an encoding that was not asked for",
        encoded("br", b"\x0b\x02\x80nonsense\x03"),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    answered(
        "unknown encoding",
        "an encoding that is none, over a plain stream",
        encoded("x-plain", _BODY),
    ),
    answered(
        "latin-1",
        "text in Latin-1",
        stream(
            *_ending(b'data: {"choices": [{"index": 0, "delta": {"content": "Caf\xe9."}}]}\n\n')
        ),
        answer="Caf\ufffd.",
    ),
    answered(
        "bad UTF-8",
        "bytes that are no UTF-8",
        stream(
            *_ending(b'data: {"choices": [{"index": 0, "delta": {"content": "a\xff\xc3(b"}}]}\n\n')
        ),
        answer="a\ufffd\ufffd(b",
    ),
    lost(
        "UTF-16",
        "a stream in UTF-16",
        stream(_TEXT.encode("utf-16-le")),
        "BadResponse",
        "the endpoint answered with bytes that are not text",
    ),
    lost(
        "binary",
        "bytes that are no text",
        stream(bytes(range(128, 256)) * 4),
        "BadResponse",
        "the endpoint answered with bytes that are not text",
    ),
]
_HUGE = 10**15
COUNTS: list[Fault] = [
    answered(
        "no reason, sized",
        "a body of a told length, without a finish reason and without an end mark",
        whole(b"".join((ROLE, *WORDS, counted())), kind=SSE),
    ),
    answered(
        "empty reasons, sized",
        "a body of a told length, with an empty finish reason in each chunk",
        whole(
            b"".join(event(part({"content": text}, "")) for text in ("Rain ", "is ", "water.")),
            kind=SSE,
        ),
        told=None,
    ),
    lost(
        "no words, sized",
        "a body of a told length, without a word",
        whole(ROLE, kind=SSE),
        "ConnectionLost",
        "the answer ended early",
        again=True,
    ),
    answered("no count", "no count of tokens", stream(ROLE, *WORDS, finish(), DONE), told=None),
    answered(
        "huge count",
        "a count of a thousand billion tokens",
        stream(ROLE, *WORDS, finish(), counted(_HUGE, _HUGE), DONE),
        told=None,
    ),
    answered(
        "negative count",
        "a negative count",
        stream(ROLE, *WORDS, finish(), counted(-9, -3), DONE),
        told=None,
    ),
    answered(
        "NaN count",
        "a count that is NaN",
        stream(
            ROLE,
            *WORDS,
            finish(),
            event('{"choices": [], "usage": {"prompt_tokens": NaN, "completion_tokens": NaN}}'),
            DONE,
        ),
        told=None,
    ),
    answered(
        "null count",
        "a count that is null",
        stream(ROLE, *WORDS, finish(), counted(None, None), DONE),
        told=None,
    ),
    answered(
        "count as list",
        "a count that is a list",
        stream(ROLE, *WORDS, finish(), event({"choices": [], "usage": [9, 3]}), DONE),
        told=None,
    ),
    answered(
        "cost",
        "a cost of a thousand billion dollars",
        stream(ROLE, *WORDS, finish(), counted(cost=_HUGE), DONE),
    ),
]
NO_ANSWERS: list[Fault] = [
    lost(
        "nothing",
        "an answer without a word",
        stream(ROLE, *ENDING),
        "BadResponse",
        "it gave an empty answer",
    ),
    lost(
        "blank",
        "an answer of white space",
        stream(*_ending(said(" \n"))),
        "BadResponse",
        "it gave an empty answer",
        begun=True,
    ),
    lost(
        "whole nothing",
        "a whole answer without a word",
        whole(
            COMPLETION
            | {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "stop"}]}
        ),
        "BadResponse",
        "it gave an empty answer",
    ),
    lost(
        "no choices",
        "a whole answer without choices",
        whole(COMPLETION | {"choices": []}),
        "BadResponse",
        "lab: the answer is not a completion",
    ),
    lost(
        "refusal",
        "the model refuses",
        stream(*_ending(event(part({"refusal": f"I cannot. {POISON}"})))),
        "AnswerRefused",
        f"it refused to answer: I cannot. {POISON}",
    ),
    lost(
        "filtered",
        "a content filter stops it before the first word",
        stream(ROLE, finish("content_filter"), DONE),
        "ContentFiltered",
        "the provider's content filter stopped its answer",
    ),
    answered(
        "filtered after text",
        "a content filter stops it after some words",
        stream(ROLE, *WORDS, finish("content_filter"), counted(), DONE),
    ),
    answered(
        "cut",
        "its tokens run out after some words",
        stream(ROLE, *WORDS, finish("length"), counted(), DONE),
    ),
    lost(
        "cut before text",
        "its tokens run out before the first word",
        stream(ROLE, finish("length"), counted(), DONE),
        "BadResponse",
        "it used all its tokens before its answer began",
    ),
    lost(
        "cut while thinking",
        "its tokens run out while it reasons",
        stream(ROLE, thought(f"{POISON} hm"), finish("length"), counted(), DONE),
        "BadResponse",
        "it used all its tokens for thinking",
    ),
    lost(
        "thought alone",
        "reasoning, and no answer",
        stream(*_ending(thought(f"{POISON} hm"))),
        "BadResponse",
        "it gave reasoning, but no answer",
    ),
    lost(
        "unclosed tag",
        "reasoning in the text that is never closed",
        stream(ROLE, said(f"<think>{POISON} hm"), finish("length"), DONE),
        "BadResponse",
        "it used all its tokens for thinking",
    ),
    answered(
        "tags",
        "reasoning in the text, in tags",
        stream(*_ending(said(f"<think>{POISON}</think>"), *WORDS)),
    ),
    lost(
        "tool call",
        "a tool call in place of an answer",
        stream(
            ROLE,
            event(
                part({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]})
            ),
            finish("tool_calls"),
            DONE,
        ),
        "BadResponse",
        "it called a tool instead of answering",
    ),
    answered(
        "tool call and text",
        "a tool call beside an answer",
        stream(
            ROLE,
            *WORDS,
            event(
                part({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]})
            ),
            finish("tool_calls"),
            counted(),
            DONE,
        ),
    ),
    answered(
        "odd finish",
        "a finish reason that nobody knows",
        stream(ROLE, *WORDS, finish("because"), counted(), DONE),
    ),
    answered("other model", "the name of another model", stream(_reframed('"m-1"', '"m-2"'))),
    answered(
        "end in one",
        "text and finish reason in one chunk",
        stream(ROLE, event(part({"content": "Rain is water."}, "stop")), counted(), DONE),
    ),
]
