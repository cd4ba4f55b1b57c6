"""The sources of an answer are read in every shape that providers give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa_cli.clients import sse_decoder
from moa_cli.clients.completion import whole
from tests.support.recordings import recordings

A, B = "https://example.org/a", "https://example.org/b"


def of_whole(message: dict[str, Any], choice: dict[str, Any], **top: Any) -> list[tuple[str, str]]:
    told = {"role": "assistant", "content": "Rain.", **message}
    payload = {"choices": [{"index": 0, "message": told, "finish_reason": "stop", **choice}], **top}
    delta, error = whole(payload)
    assert error is None
    assert delta.text == "Rain."
    return [(citation.url, citation.title) for citation in delta.citations]


def of_stream(*payloads: dict[str, Any], merged: bool) -> list[tuple[str, str]]:
    events = [("", json.dumps(payload)) for payload in payloads]
    found: list[tuple[str, str]] = []
    stream = sse_decoder._Stream("m")
    for delta in stream.take(events, merged=merged):
        if delta.citations:
            found = [(citation.url, citation.title) for citation in delta.citations]
    return found


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def annotation(url: str, title: str) -> dict[str, Any]:
    told = {"url": url, "title": title, "start_index": 0, "end_index": 3, "content": "…"}
    return {"type": "url_citation", "url_citation": told}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("message", "top", "expected"),
    [
        # xAI and Perplexity: addresses at the top.
        ({}, {"citations": [A, B, A]}, [(A, ""), (B, "")]),
        ({}, {"citations": [A], "search_results": [{"title": "T", "url": A}]}, [(A, "T")]),
        # What was found and not cited is left out; where nothing says what is cited, it counts.
        ({}, {"citations": [A], "search_results": [{"url": B}, {"url": A}]}, [(A, "")]),
        ({}, {"search_results": [{"title": " T\n t ", "url": A, "date": None}]}, [(A, "T t")]),
        # OpenRouter and OpenAI's search models.
        ({"annotations": [annotation(A, "T"), annotation(A, "T")]}, {}, [(A, "T")]),
        ({"annotations": [{"type": "url_citation", "url": A, "title": "T"}]}, {}, [(A, "T")]),
        ({"annotations": [{"type": "file", "file": {"hash": "x"}}]}, {}, []),
        # Objects in `citations`, and beside the text.
        ({"citations": [{"url": A, "title": "T"}]}, {}, [(A, "T")]),
        # Z.ai, Groq, Gemini.
        ({}, {"web_search": [{"link": A, "title": "T"}]}, [(A, "T")]),
        (
            {"executed_tools": [{"search_results": {"results": [{"url": A, "title": "T"}]}}]},
            {},
            [(A, "T")],
        ),
        (
            {"groundingMetadata": {"groundingChunks": [{"web": {"uri": A, "title": "T"}}]}},
            {},
            [(A, "T")],
        ),
        # What is none.
        ({}, {"citations": "no list"}, []),
        ({}, {"citations": [None, 7, "", [], {}, {"url": 7}, "x" * 3000]}, []),
        ({}, {"citations": [{"url": A, "title": 7}]}, [(A, "")]),
    ],
)
def test_every_shape_is_read(
    message: dict[str, Any], top: dict[str, Any], expected: list[tuple[str, str]], merged: bool
) -> None:
    assert of_whole(message, {}, **top) == expected
    assert of_stream(piece(content="Rain."), piece("stop", **message) | top, merged=merged) == (
        expected
    )
    first = piece(role="assistant", content="Rain.", **message) | top
    assert of_stream(first, piece("stop"), merged=merged) == expected


def test_annotations_that_come_one_by_one_are_all_kept() -> None:
    pieces = [piece(content="x", annotations=[annotation(url, "")]) for url in (A, B)]
    assert of_stream(*pieces, piece("stop"), merged=False) == [(A, ""), (B, "")]


def test_their_number_and_length_are_bounded() -> None:
    many = [{"url": f"{A}/{number}", "title": "t" * 1000} for number in range(500)]
    found = of_whole({}, {}, citations=many)
    assert len(found) == 50
    assert {len(title) for _, title in found} == {300}


def test_hostile_nesting_ends() -> None:
    value: Any = {"url": A}
    for _ in range(500):
        value = {"results": [value]}
    assert of_whole({}, {}, citations=[value]) == []


@pytest.mark.parametrize(
    "recording",
    [recording for recording in recordings() if recording.name.startswith("perplexity")],
    ids=lambda recording: recording.name,
)
def test_the_recorded_ones_are_read(recording: Any) -> None:
    text = recording.body.decode()
    if text.startswith("{"):
        payloads = [json.loads(text)]
        delta, _ = whole(payloads[0])
        found = [(citation.url, citation.title) for citation in delta.citations]
    else:
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        payloads = [json.loads(line) for line in lines]
        found = of_stream(*payloads, merged=True)
    assert [url for url, _ in found] == payloads[-1]["citations"]
    titles = {result["url"]: result["title"] for result in payloads[-1]["search_results"]}
    assert [title for _, title in found] == [titles[url] for url, _ in found]
