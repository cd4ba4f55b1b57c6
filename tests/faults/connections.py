"""What happens to the connection: heads that are odd, drops, silence, redirects."""

from __future__ import annotations

from tests.faults.fault import Fault, answered, lost
from tests.faults.script import (
    CHUNKED,
    CLOSE,
    COMPLETION,
    DONE,
    ENDING,
    EVENTS,
    GOOD,
    HANG,
    HTML,
    JSON,
    LAST,
    PARTIAL,
    POISON,
    RESET,
    ROLE,
    WORDS,
    Script,
    Step,
    Wait,
    begun,
    chunk,
    counted,
    event,
    finish,
    head,
    said,
    stream,
    text_of,
    thought,
    whole,
)

_BODY = b"".join(EVENTS)
_WHOLE = text_of(COMPLETION).encode()
_BROKE = "lab: the connection to HOST broke"
# Seconds in which a client has read what it was sent.
_SETTLED = 1.5
# Limits that a silent endpoint meets soon, and that a busy machine keeps with one that is not; and
# those of a model that has to be waited for at another place only.
_SHORT = {"stall": 2, "first_token": 2}
_AT_STALL = _SHORT | {"first_token": 60}
# Longer than those, in steps that are shorter.
_SLOW = 0.15
_STEPS = 18

HEADERS: list[Fault] = [
    answered("no type", "a stream without a content type", stream(*EVENTS, kind=None)),
    answered("text/plain", "a stream under `text/plain`", stream(*EVENTS, kind="text/plain")),
    answered("text/html", "a stream under `text/html`", stream(*EVENTS, kind=HTML)),
    answered("stream as JSON", "a stream under `application/json`", stream(*EVENTS, kind=JSON)),
    answered(
        "JSON as stream",
        "a whole answer under `text/event-stream`",
        whole(COMPLETION, kind="text/event-stream"),
    ),
    answered(
        "JSON without type", "a whole answer without a content type", whole(COMPLETION, kind=None)
    ),
    answered("JSON as page", "a whole answer under `text/html`", whole(COMPLETION, kind=HTML)),
    answered(
        "length too long",
        "a `Content-Length` beyond the end of the stream",
        (head(200, f"Content-Length: {len(_BODY) + 99}"), _BODY, CLOSE),
    ),
    lost(
        "length too short",
        "a `Content-Length` that cuts the stream",
        (head(200, f"Content-Length: {len(_BODY) // 3}") + _BODY, CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "JSON too short",
        "a `Content-Length` that cuts a whole answer",
        whole(COMPLETION, length=40),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "two lengths",
        "two different `Content-Length`",
        (head(200, "Content-Length: 5", "Content-Length: 7"), b"12345", CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "no colon",
        "a header without a colon",
        (head(200, "nonsense"), CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "huge header",
        "a header of 300 kB",
        (head(200, f"X-Long: {'x' * 300_000}", CHUNKED), CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "no HTTP",
        "a text in place of a head",
        (b"hello\r\n\r\n", CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "bad status",
        "a status that is no number",
        (b"HTTP/1.1 abc OK\r\n\r\n", CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "bad chunk",
        "a chunk whose length is no number",
        (head(200, CHUNKED) + b"zz\r\nhello\r\n", CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    lost(
        "bad chunk later",
        "a chunk whose length is no number, behind a head that came alone",
        (head(200, CHUNKED), Wait(_SETTLED), b"zz\r\nhello\r\n", CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
    ),
    lost(
        "bad chunk after text",
        "a chunk whose length is no number, after text",
        (*begun(*PARTIAL), Wait(_SETTLED), b"zz\r\nhello\r\n", CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
        begun=True,
    ),
    lost(
        "switching",
        "101, another protocol",
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", CLOSE),
        "BadResponse",
        "lab: the answer could not be read",
    ),
    answered(
        "HTTP/1.0",
        "HTTP/1.0, without a length",
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + _BODY, CLOSE),
    ),
    answered(
        "no length", "a stream without a length", (head(200, "Connection: close") + _BODY, CLOSE)
    ),
    answered("100", "100 before the answer", (b"HTTP/1.1 100 Continue\r\n\r\n", *GOOD)),
    answered("103", "103 before the answer", (b"HTTP/1.1 103 Early Hints\r\n\r\n", *GOOD)),
    answered(
        "201",
        "201 in place of 200",
        (
            b"HTTP/1.1 201 Created\r\n" + GOOD[0].split(b"\r\n", 1)[1]
            if isinstance(GOOD[0], bytes)
            else b"",
            *GOOD[1:],
        ),
    ),
]
DROPS: list[Fault] = [
    lost("closes", "closes before the head", (CLOSE,), "ConnectionLost", _BROKE, again=True),
    lost("resets", "resets before the head", (RESET,), "ConnectionLost", _BROKE, again=True),
    lost(
        "closes in head",
        "closes in the middle of the head",
        (b"HTTP/1.1 200 OK\r\nConte", CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
        headless=True,
    ),
    lost(
        "closes after head",
        "closes behind the head",
        (*begun(), CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
    ),
    lost(
        "closes after role",
        "closes before the first word",
        (*begun(ROLE), CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
    ),
    lost(
        "resets after head",
        "resets behind the head",
        (*begun(), Wait(_SETTLED), RESET),
        "ConnectionLost",
        _BROKE,
        again=True,
    ),
    lost(
        "closes in event",
        "closes in the middle of a word",
        (*begun(*PARTIAL, said("never")[:20]), CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
        begun=True,
    ),
    lost(
        "closes after text",
        "closes between two words",
        (*begun(*PARTIAL), CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
        begun=True,
    ),
    lost(
        "resets after text",
        "resets between two words",
        (*begun(*PARTIAL), Wait(_SETTLED), RESET),
        "ConnectionLost",
        _BROKE,
        again=True,
        begun=True,
    ),
    lost(
        "closes after thought",
        "closes while it reasons",
        (*begun(ROLE, thought(f"{POISON} hm")), CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
        spoke=True,
    ),
    lost(
        "ends early",
        "ends well between two words, without a finish reason",
        stream(*PARTIAL),
        "ConnectionLost",
        "the answer ended early",
        again=True,
        begun=True,
    ),
    lost(
        "ends after role",
        "ends well before the first word",
        stream(ROLE),
        "ConnectionLost",
        "the answer ended early",
        again=True,
    ),
    lost(
        "ends at once",
        "an empty stream",
        stream(),
        "ConnectionLost",
        "the answer ended early",
        again=True,
    ),
    lost(
        "whole cut",
        "closes in the middle of a whole answer",
        (head(200, f"Content-Length: {len(_WHOLE)}", kind=JSON), _WHOLE[:50], CLOSE),
        "ConnectionLost",
        _BROKE,
        again=True,
    ),
    answered(
        "closes after finish",
        "closes behind the finish reason",
        (*begun(ROLE, *WORDS, finish()), CLOSE),
        told=None,
    ),
    answered(
        "resets after finish",
        "resets behind the finish reason",
        (*begun(ROLE, *WORDS, finish()), Wait(_SETTLED), RESET),
        told=None,
    ),
    answered(
        "closes after usage",
        "closes behind the count of tokens",
        (*begun(ROLE, *WORDS, finish(), counted()), CLOSE),
    ),
    answered(
        "closes after DONE",
        "closes behind `[DONE]`, without the end of the body",
        (*begun(*EVENTS), CLOSE),
    ),
    answered(
        "resets after DONE", "resets behind `[DONE]`", (*begun(*EVENTS), Wait(_SETTLED), RESET)
    ),
    answered(
        "no finish reason",
        "`[DONE]` without a finish reason",
        stream(ROLE, *WORDS, counted(), DONE),
    ),
    lost(
        "DONE alone",
        "`[DONE]` and nothing else",
        stream(DONE),
        "BadResponse",
        "it gave an empty answer",
    ),
]


_NO_TOKEN = "lab: no first token within 2 s (`first_token`)"
_NO_MORE = "lab: nothing more for 2 s in the middle of the answer (`stall`)"


def _silent(name: str, does: str, *steps: Step, spoke: bool = False, begun: bool = False) -> Fault:
    """It is silent, at last; spoke: after reasoning, begun: after text."""
    return lost(
        name,
        does,
        (*steps, HANG),
        "ClientTimeout",
        _NO_MORE if spoke or begun else _NO_TOKEN,
        begun=begun,
        spoke=spoke,
        settings=_AT_STALL if spoke or begun else _SHORT,
    )


def _slowly(*pieces: bytes) -> Script:
    return tuple(step for piece in pieces for step in (piece, Wait(_SLOW)))


_FOREVER = 40
SILENCE: list[Fault] = [
    _silent("silent", "says nothing at all"),
    _silent("silent in head", "stops in the middle of the head", b"HTTP/1.1 200 OK\r\n"),
    _silent(
        "head byte by byte",
        "sends a head that never ends",
        b"HTTP/1.1 200 OK\r\n",
        *_slowly(*[b"X-A: b\r\n"] * _FOREVER),
    ),
    _silent("silent after head", "stops behind the head", *begun()),
    _silent("silent after role", "stops before the first word", *begun(ROLE)),
    _silent(
        "silent after thought",
        "stops while it reasons",
        *begun(ROLE, thought(f"{POISON} hm")),
        spoke=True,
    ),
    _silent("silent after text", "stops between two words", *begun(*PARTIAL), begun=True),
    _silent(
        "silent in event",
        "stops in the middle of a word",
        *begun(*PARTIAL, said("never")[:20]),
        begun=True,
    ),
    _silent(
        "silent in whole",
        "stops in the middle of a whole answer",
        head(200, f"Content-Length: {len(_WHOLE)}", kind=JSON),
        _WHOLE[:50],
    ),
    _silent(
        "comments",
        "sends comments and nothing else",
        *begun(),
        *_slowly(*[chunk(b": keep-alive\n\n")] * _FOREVER),
    ),
    _silent(
        "comments after text",
        "sends comments between two words, and nothing else",
        *begun(*PARTIAL),
        *_slowly(*[chunk(b": keep-alive\n\n")] * _FOREVER),
        begun=True,
    ),
    _silent(
        "empty deltas",
        "sends empty deltas and nothing else",
        *begun(),
        *_slowly(*[chunk(ROLE)] * _FOREVER),
    ),
    _silent(
        "empty objects",
        "sends empty objects and nothing else",
        *begun(),
        *_slowly(*[chunk(event({}))] * _FOREVER),
    ),
    _silent(
        "byte by byte",
        "sends a word one byte at a time, for ever",
        *begun(),
        *_slowly(*[chunk(said("never ")[at : at + 1]) for at in range(_FOREVER)]),
    ),
    answered(
        "slow",
        "is slow, and steady",
        (
            *begun(ROLE),
            *_slowly(*map(chunk, [*WORDS, *([thought("hm")] * _STEPS)])),
            *map(chunk, ENDING),
            LAST,
        ),
        settings=_SHORT,
    ),
    answered(
        "comments first",
        "sends comments before it answers",
        stream(b": OPENROUTER PROCESSING\n\n", *EVENTS),
    ),
    answered(
        "silent after finish",
        "stops behind the finish reason",
        (*begun(ROLE, *WORDS, finish()), HANG),
        told=None,
    ),
    answered(
        "silent after usage",
        "stops behind the count of tokens",
        (*begun(ROLE, *WORDS, finish(), counted()), HANG),
    ),
    answered("silent after DONE", "stops behind `[DONE]`", (*begun(*EVENTS), HANG)),
]


def _moved(status: int, target: str) -> Script:
    return whole(b"", status, f"Location: {target}")


REDIRECTS: list[Fault] = [
    lost(
        "307 no target",
        "redirects to an empty address",
        _moved(307, ""),
        "RequestRefused",
        "lab refused the request (307): Temporary Redirect",
    ),
    lost(
        "308 loop",
        "redirects to itself",
        _moved(308, "/v1/chat/completions"),
        "RequestRefused",
        "lab: HOST redirects endlessly",
        requests=21,
    ),
    lost(
        "301 no target",
        "301 without a target",
        (b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n",),
        "RequestRefused",
        "lab refused the request (301): Moved Permanently",
    ),
    lost(
        "302 ftp",
        "redirects to what is not a web address",
        _moved(302, "ftp://127.0.0.1/x"),
        "RequestRefused",
        "lab: the base URL is not a web address",
    ),
    answered("307", "redirects once", _moved(307, "/v1/elsewhere"), GOOD, requests=2),
]
