"""Turns in every kind of weather, and how each of them must end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moa_cli.profile import Profile
from tests.support.mixtures import lab, mixture
from tests.support.upstream import Reply, Upstream

# In every error body of these tests, and in every answer that is not whole.
POISON = "E-POISON-17"


def refusal(status: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, error={"error": {"message": f"no {POISON}"}})


REFUSED, UNKNOWN, NO_CREDIT, BROKEN = (refusal(status) for status in (400, 404, 402, 500))
LIMITED = refusal(429, Retry_After="0")
NULLS = Reply(
    events=[
        {"model": "m", "choices": [{"index": 0, "delta": {"content": None}}]},
        {"model": "m", "choices": []},
        {"model": "m", "choices": None},
        {"model": "m", "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        "[DONE]",
    ]
)
ERROR_EVENT = Reply(events=[{"error": {"message": f"worker died {POISON}"}}])
WEB_PAGE = Reply(error=f"<html><title>Sign in {POISON}</title></html>")
EMPTY = Reply(chunks=[])
BLANK = Reply(chunks=[" ", "\n"])
MUSING = Reply(chunks=[], reasoning=["let me ", f"think {POISON}"], finish_reason="length")
UNCLOSED = Reply(chunks=["<think>", f"hm {POISON}"])
ONLY_END = Reply(chunks=[f"hm {POISON}", "</think>", "\n"])
STALLED = Reply(chunks=[f"{POISON} ", "never sent"], stall_after=1)
SILENT = Reply(stall_after=0)
DROPPED = Reply(chunks=[f"half {POISON} ", "a ", "loaf"], drop_after=2)
CUT = Reply(chunks=[f"no {POISON} ", "end"], end_early=True)
HANG_UP = Reply(refuse=True)
HANG_UP_LATER = Reply(drop_after=0)

IMPATIENT: dict[str, Any] = {"timeout": 0.2}

Script = Mapping[str, Reply | list[Reply]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A turn and how it must end.

    script: by model; one reply is given always, a list of replies once each, then "from …".
    kinds: of the failures, in profile order. references: what the aggregator that was asked
    last was given, after "Responses from models:"; None if none was asked. retries: how many there
    are; None where a busy provider is asked as often as the time allows.
    """

    profile: Profile
    script: Script = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    references: str | None
    reply: str | None = "from agg"
    retries: int | None = 0


ABC = mixture("a", "b", "c")
AB = "\n1. from a\n2. from b"
ALL = "\n1. from a\n2. from b\n3. from c"
WITHOUT_B = "\n1. from a\n2. from c"
BACKED = mixture("a", aggregator=lab("agg", fallbacks=["lab:second", "lab:third"]))


def losing_b(reply: Reply, kind: str, *, retries: int | None = 0, **settings: Any) -> Scenario:
    return Scenario(
        profile=mixture("a", lab("b", **settings), "c"),
        script={"b": reply},
        kinds=(kind,),
        references=WITHOUT_B,
        retries=retries,
    )


SCENARIOS = {
    "all answer": Scenario(profile=ABC, references=ALL),
    "no rounds": Scenario(profile=mixture("a", rounds=0), references=""),
    "no proposers": Scenario(profile=mixture(), references=""),
    "two rounds": Scenario(profile=mixture("a", "b", rounds=2), references=AB),
    "three rounds": Scenario(profile=mixture("a", "b", rounds=3), references=AB),
    "layers of their own": Scenario(
        profile=mixture(layers=(("a", "b", "c"), ("d",), ("a", "c"))), references=WITHOUT_B
    ),
    "samples": Scenario(
        profile=mixture(lab("a", samples=3), "b"),
        references="\n1. from a\n2. from a\n3. from a\n4. from b",
    ),
    "byte by byte": Scenario(
        profile=ABC,
        script={"b": Reply(text="from b", byte_by_byte=True, crlf=True, comments=True)},
        references=ALL,
    ),
    "no usage told": Scenario(
        profile=ABC, script={"b": Reply(text="from b", usage=None)}, references=ALL
    ),
    "thinking aloud": Scenario(
        profile=ABC,
        script={
            "a": Reply(chunks=["<thi", "nk>", POISON, "</th", "ink>", "\n\nfrom", " a"]),
            "b": Reply(chunks=[f"{POISON}\n</thi", "nk>\n\n", "from b"]),
            "c": Reply(text="from c", reasoning=["let me ", POISON]),
            "agg": Reply(text="from agg", reasoning=["hm"], reasoning_field="reasoning"),
        },
        references=ALL,
    ),
    "refused": losing_b(REFUSED, "RequestRefused"),
    "unknown model": losing_b(UNKNOWN, "ModelNotFound"),
    "no credit": losing_b(NO_CREDIT, "NoCredit"),
    "web page": losing_b(WEB_PAGE, "BadResponse"),
    "error in the stream": losing_b(ERROR_EVENT, "ServerFailed", retries=4),
    "broken for good": losing_b(BROKEN, "ServerFailed", retries=4),
    "hung up for good": losing_b(HANG_UP, "ConnectionLost", retries=4),
    "limited for good": losing_b(LIMITED, "RateLimited", retries=None),
    "limited for longer than the call may take": losing_b(
        refusal(429, Retry_After="3600"), "RateLimited"
    ),
    "stalled": losing_b(STALLED, "ClientTimeout", **IMPATIENT),
    "silent": losing_b(SILENT, "ClientTimeout", **IMPATIENT),
    "dropped": losing_b(DROPPED, "ConnectionLost", retries=4),
    "cut": losing_b(CUT, "ConnectionLost", retries=4),
    "empty": losing_b(EMPTY, "BadResponse"),
    "blank": losing_b(BLANK, "BadResponse"),
    "nulls": losing_b(NULLS, "BadResponse"),
    "only reasoning": losing_b(MUSING, "BadResponse"),
    "only an unclosed thought": losing_b(UNCLOSED, "BadResponse"),
    "only the end of a thought": losing_b(ONLY_END, "BadResponse"),
    "two of three lost": Scenario(
        profile=ABC,
        script={"a": REFUSED, "b": DROPPED},
        kinds=("RequestRefused", "ConnectionLost"),
        references="\n1. from c",
        retries=4,
    ),
    "lost in the second round only": Scenario(
        profile=mixture("a", "b", "c", rounds=2),
        script={"b": [Reply(text="from b"), REFUSED]},
        kinds=("RequestRefused",),
        references=WITHOUT_B,
    ),
    "back in the second round": Scenario(
        profile=mixture("a", "b", "c", rounds=2),
        script={"b": [REFUSED, Reply(text="from b")]},
        kinds=("RequestRefused",),
        references=ALL,
    ),
    "all lost": Scenario(
        profile=ABC,
        script={"a": REFUSED, "b": DROPPED, "c": EMPTY},
        kinds=("RequestRefused", "ConnectionLost", "BadResponse"),
        references=None,
        reply=None,
        retries=4,
    ),
    "all lost in the second round": Scenario(
        profile=mixture("a", "b", rounds=3),
        script={"a": [Reply(text="from a"), REFUSED], "b": [Reply(text="from b"), EMPTY]},
        kinds=("RequestRefused", "BadResponse"),
        references=AB,
    ),
    "all lost, aggregator alone": Scenario(
        profile=mixture("a", "b", rounds=2, on_all_failed="solo"),
        script={"a": REFUSED, "b": EMPTY},
        kinds=("RequestRefused", "BadResponse"),
        references="",
    ),
    "retried": Scenario(
        profile=ABC,
        script={
            "a": [LIMITED, LIMITED, Reply(text="from a")],
            "b": [BROKEN, HANG_UP, HANG_UP_LATER, Reply(text="from b")],
            "agg": [LIMITED, BROKEN, Reply(text="from agg")],
        },
        references=ALL,
        retries=7,
    ),
    "aggregator refused": Scenario(
        profile=BACKED,
        script={"agg": REFUSED},
        kinds=("RequestRefused",),
        references="\n1. from a",
        reply="from second",
    ),
    "aggregator empty": Scenario(
        profile=BACKED,
        script={"agg": EMPTY, "second": LIMITED},
        kinds=("BadResponse", "RateLimited"),
        references="\n1. from a",
        reply="from third",
        retries=None,
    ),
    "no aggregator answers": Scenario(
        profile=BACKED,
        script={"agg": REFUSED, "second": EMPTY, "third": UNKNOWN},
        kinds=("RequestRefused", "BadResponse", "ModelNotFound"),
        references="\n1. from a",
        reply=None,
    ),
    "aggregator dropped": Scenario(
        profile=BACKED,
        script={"agg": DROPPED},
        kinds=("ConnectionLost",),
        references="\n1. from a",
        reply=None,
    ),
    "an answer that speaks of the tag": Scenario(
        profile=mixture("a"),
        script={"agg": Reply(text="The mark that ends it is </think>")},
        references="\n1. from a",
        reply="The mark that ends it is </think>",
    ),
    "all is lost": Scenario(
        profile=mixture("a", rounds=1, on_all_failed="solo"),
        script={"a": REFUSED, "agg": EMPTY},
        kinds=("RequestRefused", "BadResponse"),
        references="",
        reply=None,
    ),
}


def play(up: Upstream, script: Script) -> None:
    """Make the upstream answer by `script`, and "from <model>" where that says nothing."""
    up.always("*", Reply(text=lambda request: f"from {request.model}"))
    for model, replies in script.items():
        if isinstance(replies, Reply):
            up.always(model, replies)
        else:
            up.enqueue(model, *replies)
