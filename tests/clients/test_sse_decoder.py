"""A streamed completion is read the same however its bytes are cut, whatever shape the
provider gives it, and an end that is none is never taken for one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.clients import sse_decoder
from moa_cli.clients.completion import whole
from moa_cli.clients.sse_decoder import SseDecoder
from moa_cli.clients.thinking import ThinkSplitter
from moa_cli.clients.transport import ErrorObject
from moa_cli.clients.usage import usage_from
from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BadResponse, ConnectionLost
from tests.support.deltas import deltas_of, joined

DONE = "data: [DONE]\n\n"


def chunk(delta: object = None, finish: str | None = None, **more: object) -> str:
    """The event of one completion chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    payload = {"model": "m", "choices": [choice], **more}
    return f"data: {json.dumps(payload, ensure_ascii=False)}\n\n"


def said(*pieces: str) -> str:
    """A whole stream that says `pieces`."""
    return "".join(chunk({"content": piece}) for piece in pieces) + chunk({}, "stop") + DONE


async def _bytes(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _collect(pieces: Iterable[bytes], *, merged: bool = False) -> list[Delta]:
    async with aclosing(deltas_of(_bytes(pieces), merged=merged)) as deltas:
        return [delta async for delta in deltas]


def read(*pieces: str | bytes, merged: bool = False) -> list[Delta]:
    """The deltas of a stream that arrives in these pieces. merged: as for `deltas`."""
    sent = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return asyncio.run(_collect(sent, merged=merged))


def spans(cuts: list[int], length: int) -> Iterator[tuple[int, int]]:
    """The stretches between the cuts, in order, some of them empty."""
    return itertools.pairwise([0, *sorted(min(cut, length) for cut in cuts), length])


def events(*pieces: str) -> list[tuple[str, str]]:
    reader = SseDecoder()
    found = [event for piece in pieces for event in reader.feed(piece.encode())]
    return [*found, *reader.end()]


# Every line end, every kind of line, and characters of one to four bytes.
VARIED = (
    "\ufeff: a comment\r\n\r\n"
    + "id: 7\r\nevent: message\r\n"
    + chunk({"role": "assistant", "content": ""}).replace("\n", "\r\n")
    + chunk({"reasoning_content": "hm\u2028 ü"})
    + "retry: 3000\r"
    + chunk({"content": "a\u2028b\u2029c\x85d\x0be "}).replace("\n", "\r")
    + chunk({"content": "€ 🙂 \\n\\r\\n </think>"})
    + ": keep-alive\n\n"
    + chunk({"content": [{"type": "text", "text": "part"}, {"text": "s"}]}).replace("\n", "\r\n")
    + chunk({}, "stop")
    + chunk(None, choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
    + DONE
).encode()
VARIED_READ = Delta(
    text="a\u2028b\u2029c\x85d\x0be € 🙂 \\n\\r\\n </think>parts",
    reasoning="hm\u2028 ü",
    usage=Usage(prompt_tokens=3, completion_tokens=2, calls=1, unpriced_calls=1),
    finish_reason="stop",
    model="m",
)


def test_one_byte_at_a_time_reads_as_in_one_piece() -> None:
    assert joined(read(VARIED)) == VARIED_READ
    assert joined(read(*(bytes([byte]) for byte in VARIED))) == VARIED_READ


@given(st.lists(st.integers(0, len(VARIED)), max_size=40))
def test_any_cut_of_the_bytes_reads_the_same(cuts: list[int]) -> None:
    assert joined(read(*(VARIED[a:b] for a, b in spans(cuts, len(VARIED))))) == VARIED_READ


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_any_text_in_any_cut_comes_out_as_it_went_in(
    texts: list[str], end: str, data: st.DataObject
) -> None:
    # A first piece that cannot be mistaken for the beginning of a `<think>`.
    stream = said("-", *texts).replace("\n", end).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert joined(read(*(stream[a:b] for a, b in spans(cuts, len(stream))))) == Delta(
        text="-" + "".join(texts), finish_reason="stop", model="m"
    )


# What may tell an event of a text apart from those around it. A text itself may be anything.
_UNLIKE: list[dict[str, Any]] = [
    {},
    {},
    {"model": "another"},
    {"id": "of its own"},
    {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    {"content": "beside the choices"},
    {"citations": ["https://example.org/a"]},
]


@given(
    st.lists(
        st.tuples(
            st.text(max_size=5) | st.sampled_from(['"', "\\", '","x":"', '"content":"', "\n", "é"]),
            st.sampled_from(_UNLIKE),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 3000), max_size=4),
)
def test_events_that_look_alike_are_read_as_each_would_be_by_itself(
    told: list[tuple[str, dict[str, Any], bool]], cuts: list[int]
) -> None:
    frames = [
        chunk({"content": text, **({"role": "assistant"} if role else {})}, **more)
        for text, more, role in told
    ]
    stream = "".join([*frames, chunk({}, "stop"), DONE]).encode("utf-8", "surrogatepass")
    alone = joined(read(*frames, chunk({}, "stop"), DONE))
    pieces = [stream[begin:end] for begin, end in spans(cuts, len(stream))]
    assert alone.text == "".join(text for text, _, _ in told)
    assert joined(read(*pieces)) == alone
    assert joined(read(stream, merged=True)) == alone


def test_an_event_that_begins_and_ends_like_others_may_hold_more_between() -> None:
    frames = [chunk({"content": "a"})] * 3
    other = chunk({"content": "X"}).replace('"X"', '"b", "role": "assistant", "refusal": "no"')
    found = joined(read("".join([*frames, other]), chunk({}, "stop"), DONE))
    assert (found.text, found.refusal) == ("aaab", "no")
    ended = chunk({"content": "X"}).replace('"X"', '"b"}, "index": 1, "delta": {"content": "c"')
    assert joined(read("".join([*frames, ended]), chunk({}, "stop"), DONE)).text == "aaa"


def test_a_line_separator_inside_json_ends_no_line() -> None:
    assert joined(read(said("one\u2028two\u2029three\x85four"))).text == (
        "one\u2028two\u2029three\x85four"
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("missing", [0, 1, 2], ids=["whole", "no blank line", "no line end"])
def test_the_last_event_needs_no_blank_line(end: str, missing: int) -> None:
    stream = (chunk({"content": "a"}) + chunk({"content": "b"}, "stop"))[: -missing or None]
    assert joined(read(stream.replace("\n", end))).text == "ab"


@pytest.mark.parametrize("name", ["ping", "heartbeat", "keep-alive"])
def test_an_event_that_keeps_the_connection_alive_may_hold_anything(name: str) -> None:
    sign = f"event: {name}\ndata: 2026-11-29 12:00\n\n"
    stream = sign + chunk({"content": "a"}) + sign + chunk({"content": "b"}, "stop")
    assert joined(read(stream)).text == "ab"


def test_a_crlf_that_is_cut_in_two_is_one_line_end() -> None:
    # Two line ends would make an empty line, which ends the event before its second line.
    assert events("data: a\r", "\ndata: b\r", "\n\r", "\n") == [("", "a\nb")]


def test_comments_ids_and_retries_say_nothing() -> None:
    stream = f": hello\n\nid: 1\nretry: 10\n\n:\n{chunk({'content': 'x'})}id\n\nfoo: bar\n\n{DONE}"
    assert joined(read(stream)).text == "x"


def test_fields_are_read_as_the_specification_says() -> None:
    assert events("event:x\ndata:no space\n\n") == [("x", "no space")]
    assert events("data:  two spaces\n\n") == [("", " two spaces")]
    assert events("data\ndata: b\n\n") == [("", "\nb")]
    assert events("event: lost\n\ndata: later\n\n") == [("", "later")]
    assert events("data: a\nevent: named\n\ndata: b\n\n") == [("named", "a"), ("", "b")]


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    assert joined(read("\ufeff" + said("x"))).text == "x"


def test_named_events_that_are_no_errors_are_read_like_others() -> None:
    assert joined(read("event: message\n" + said("x"))).text == "x"


def test_bytes_that_are_no_utf8_are_replaced_and_break_nothing() -> None:
    stream = said("a?b").encode().replace(b"?", b"\xff")
    assert joined(read(stream)).text == "a\ufffdb"


@pytest.mark.parametrize(
    "error",
    [{"message": "overloaded", "code": 503}, "overloaded", [{"message": "overloaded"}]],
    ids=["object", "text", "list"],
)
def test_an_error_object_amid_a_stream_is_raised_after_what_came_before(error: object) -> None:
    got: list[str] = []

    async def run() -> None:
        stream = chunk({"content": "half "}) + f"data: {json.dumps({'error': error})}\n\n"
        async with aclosing(deltas_of(_bytes([stream.encode()]))) as deltas:
            async for delta in deltas:
                got.append(delta.text)

    with pytest.raises(ErrorObject) as raised:
        asyncio.run(run())
    assert got == ["half "]
    assert raised.value.payload == {"error": error}


def test_a_null_error_beside_choices_is_no_error() -> None:
    assert joined(read(chunk({"content": "x"}, error=None), DONE)).text == "x"


@pytest.mark.parametrize(
    ("data", "payload"),
    [('{"message": "gone"}', {"message": "gone"}), ("plain words", "plain words")],
    ids=["json", "text"],
)
def test_an_event_named_error_is_an_error_whatever_it_holds(data: str, payload: object) -> None:
    with pytest.raises(ErrorObject) as raised:
        read(f"event: error\ndata: {data}\n\n", said("never"))
    assert raised.value.payload == payload


def test_a_finish_reason_error_is_an_error() -> None:
    choice = {"delta": {"content": ""}, "finish_reason": "error", "error": {"message": "boom"}}
    with pytest.raises(ErrorObject) as raised:
        read(f"data: {json.dumps({'choices': [choice]})}\n\n")
    assert raised.value.payload == {"message": "boom"}


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None},
        {"choices": []},
        {},
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": []}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"content": None}}]},
        {"choices": [{"delta": {"content": []}}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None}, "finish_reason": ""}]},
        {"model": None, "usage": None, "x_groq": None, "choices": []},
        {"model": "", "usage": [], "x_groq": "x", "choices": []},
        {"usage": {"prompt_tokens": None}, "x_groq": [], "error": None},
    ],
    ids=json.dumps,
)
def test_a_chunk_without_content_adds_nothing_and_breaks_nothing(odd: object) -> None:
    whole = joined(read(chunk({"content": "a"}), f"data: {json.dumps(odd)}\n\n", said("b")))
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("ab", "", "stop")
    assert whole.model == "m"


def test_content_as_a_list_of_parts_is_their_text() -> None:
    parts = [
        {"type": "text", "text": "one "},
        {"type": "image_url", "image_url": {"url": "http://x"}},
        "two",
        {"type": "text", "text": None},
        None,
    ]
    assert joined(read(chunk({"content": parts}, "stop"))).text == "one two"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_in_a_field_of_its_own_is_no_text(field: str) -> None:
    first = chunk({field: "let me ", "content": None})
    both = chunk({field: "think", "content": "answer"})
    whole = joined(read(first, both, chunk({}, "stop")))
    assert (whole.reasoning, whole.text) == ("let me think", "answer")


def test_reasoning_told_in_both_fields_counts_once() -> None:
    twice = chunk({"reasoning": "hm", "reasoning_content": "hm", "content": ""})
    assert joined(read(twice, said("x"))).reasoning == "hm"


@pytest.mark.parametrize(
    ("pieces", "reasoning", "text"),
    [
        (["<think>hm</think>yes"], "hm", "yes"),
        (["\n <think>\nhm\n</think>\n\n yes \n"], "\nhm\n", "yes \n"),
        (["<th", "ink>h", "m</", "think", ">", "\n", "\n", "yes"], "hm", "yes"),
        (list("<think>a<b</thinking></think>yes"), "a<b</thinking>", "yes"),
        (["<think>", "</think>", "yes"], "", "yes"),
        (["<think>", "still", " thinking"], "still thinking", ""),
        (["<think>", "cut </thi"], "cut </thi", ""),
        (["<think>hm</think>"], "hm", ""),
        (["<think>hm</think>a <think>b</think>"], "hm", "a <think>b</think>"),
        (["say <think>b</think>"], "", "say <think>b</think>"),
        (["say ", "<think>", "b</think>"], "", "say <think>b</think>"),
        (["<thinker>"], "", "<thinker>"),
        (["<th"], "", "<th"),
        ([" ", "\n", "x"], "", " \nx"),
        (["  "], "", "  "),
        (["</think>x"], "", "</think>x"),
        ([""], "", ""),
    ],
    ids=repr,
)
def test_only_a_leading_think_tag_parts_reasoning_from_text(
    pieces: list[str], reasoning: str, text: str
) -> None:
    whole = joined(read(said(*pieces)))
    assert (whole.reasoning, whole.text) == (reasoning, text)


@given(
    st.text("<>/think a\n", max_size=40),
    st.booleans(),
    st.lists(st.integers(0, 60), max_size=10),
)
def test_the_think_splitter_does_not_mind_where_it_is_cut(
    text: str, thinks: bool, cuts: list[int]
) -> None:
    text = f"<think>{text}" if thinks else text
    whole = Delta(text=text)
    begun = text.lstrip()
    if begun.startswith("<think>"):
        reasoning, _, rest = begun.removeprefix("<think>").partition("</think>")
        whole = Delta(reasoning=reasoning, text=rest.lstrip())
    splitter = ThinkSplitter()
    pieces = [splitter.feed(text[a:b]) for a, b in spans(cuts, len(text))]
    assert joined([*pieces, splitter.flush()]) == whole


@pytest.mark.parametrize(
    "where",
    [
        [chunk({}, "stop"), chunk(None, choices=[], usage="@")],
        [chunk({}, "stop", usage="@")],
        [chunk({}, "stop", x_groq={"usage": "@"})],
        [chunk({"content": "!"}, usage="@"), chunk({}, "stop", usage=None)],
    ],
    ids=["own chunk", "with choices", "x_groq", "before the end"],
)
def test_usage_is_found_wherever_it_is_told(where: list[str]) -> None:
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    told = [item.replace('"@"', json.dumps(usage)) for item in where]
    assert joined(read(chunk({"content": "x"}), *told, DONE)).usage == Usage(
        prompt_tokens=11,
        completion_tokens=7,
        reasoning_tokens=3,
        cached_tokens=5,
        calls=1,
        unpriced_calls=1,
    )


def test_a_later_usage_replaces_an_earlier_one() -> None:
    first, last = ({"prompt_tokens": 9, "completion_tokens": n} for n in (1, 4))
    stream = chunk({"content": "x"}, usage=first) + chunk({}, "stop", usage=last)
    assert [delta.usage and delta.usage.completion_tokens for delta in read(stream)] == [1, 4]


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({}, None),
        ({"prompt_tokens": 2}, Usage(prompt_tokens=2, calls=1, unpriced_calls=1)),
        ({"prompt_tokens": 2, "cost": 0.0025}, Usage(prompt_tokens=2, calls=1, cost=0.0025)),
        ({"prompt_tokens": 2, "cost": -1}, Usage(2, calls=1, unpriced_calls=1)),
        ({"prompt_tokens": 2, "cost": {"total": 3}}, Usage(2, calls=1, unpriced_calls=1)),
        (
            {
                "prompt_tokens": 2,
                "cost": 0.25,
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": 0.5},
            },
            # What the endpoint charges; the provider behind it bills the rest by itself.
            Usage(2, calls=1, cost=0.25),
        ),
        (
            {"prompt_tokens": 12.0, "completion_tokens": "3"},
            Usage(12, 3, calls=1, unpriced_calls=1),
        ),
        ({"input_tokens": 12, "output_tokens": 3}, Usage(12, 3, calls=1, unpriced_calls=1)),
        ({"total_tokens": 12}, None),
        ({"prompt_tokens": -5, "completion_tokens": 10**30}, None),
        ({"prompt_tokens": True, "completion_tokens": "many"}, None),
        (
            {"prompt_tokens": 9, "prompt_cache_hit_tokens": 4, "completion_tokens_details": None},
            Usage(prompt_tokens=9, cached_tokens=4, calls=1, unpriced_calls=1),
        ),
    ],
    ids=[
        *("empty", "half", "cost", "negative cost", "odd cost", "own key", "texts"),
        *("other names", "sum alone", "absurd", "odd", "deepseek"),
    ],
)
def test_usage_counts_only_what_is_a_count(told: object, usage: Usage | None) -> None:
    assert usage_from({"usage": told}) == usage


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "\n\n",
        ": only a comment\n\n",
        chunk({"content": "half"}),
        chunk({"content": "half"})[:-2],
        chunk({"content": "half"}) + chunk({"content": "more"}, usage={"prompt_tokens": 1}),
    ],
    ids=["nothing", "blank", "comment", "one", "no blank line", "usage"],
)
def test_an_end_without_finish_reason_or_mark_is_a_lost_connection(stream: str) -> None:
    with pytest.raises(ConnectionLost, match="ended early"):
        read(stream)


def test_what_was_held_back_is_given_out_before_the_connection_counts_as_lost() -> None:
    got: list[Delta] = []

    async def run() -> None:
        stream = chunk({"content": "<think>hm </thi"}).encode()
        async with aclosing(deltas_of(_bytes([stream]))) as deltas:
            async for delta in deltas:
                got.append(delta)

    with pytest.raises(ConnectionLost):
        asyncio.run(run())
    assert joined(got).reasoning == "hm </thi"


def test_the_end_mark_is_enough_without_a_finish_reason() -> None:
    assert joined(read(chunk({"content": "x"}) + DONE)).text == "x"


def test_a_finish_reason_is_enough_without_the_end_mark() -> None:
    assert joined(read(chunk({"content": "x"}, "length"))).finish_reason == "length"


def test_nothing_is_read_after_the_end_mark() -> None:
    assert joined(read(said("x") + "data: not json\n\n" + said("y"))).text == "x"


def test_the_end_mark_may_have_spaces() -> None:
    assert joined(read(chunk({"content": "x"}) + "data:  [DONE] \n\n")).text == "x"


@pytest.mark.parametrize(
    "data",
    ["{not json", "<html>", '{"choices": [', "[]", "7", "null", '"text"', "[[DONE]]"],
)
def test_an_event_that_is_no_completion_chunk_is_a_bad_response(data: str) -> None:
    with pytest.raises(BadResponse, match="the endpoint sent an event that is no"):
        read(chunk({"content": "x"}), f"data: {data}\n\n", DONE)


def test_a_line_without_end_is_given_up() -> None:
    with pytest.raises(BadResponse, match="16 MB"):
        read(*(b"x" * (1 << 20) for _ in range(17)))


def test_a_whole_completion_reads_like_a_streamed_one() -> None:
    message = {"content": "<think>hm</think>\nyes", "role": "assistant"}
    payload = {
        "model": "m",
        "choices": [{"message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1},
    }
    assert whole(payload)[0] == Delta(
        text="yes",
        reasoning="hm",
        usage=Usage(prompt_tokens=2, completion_tokens=1, calls=1, unpriced_calls=1),
        finish_reason="length",
        model="m",
    )


def test_a_whole_completion_that_does_not_say_so_has_stopped() -> None:
    message = {"content": "<th", "reasoning": "r"}
    assert whole({"choices": [{"message": message}]})[0] == Delta(
        text="<th", reasoning="r", finish_reason="stop"
    )


@pytest.mark.parametrize("end", ["", DONE], ids=["by its reader", "at the end mark"])
def test_a_stream_that_is_left_leaves_no_work_to_the_event_loop(end: str) -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        yield chunk({"content": "x"}).encode() + end.encode()
        while True:
            yield chunk({"content": "y"}).encode()

    async def run() -> set[asyncio.Task[object]]:
        async with aclosing(endless()) as source, aclosing(deltas_of(source)) as deltas:
            async for delta in deltas:
                assert delta.text in ("x", "")
                if not end:
                    break
        # A generator that was dropped unclosed would now be closed by a task of the loop's.
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(run()) == set()


def with_logprobs(text: str, logprobs: object, **more: str) -> str:
    """A stream whose first piece of text comes with these."""
    choice = {"index": 0, "delta": {"content": text, **more}, "logprobs": logprobs}
    later = {**choice, "logprobs": {"content": [{"top_logprobs": [_told("later", -1)]}]}}
    events = [{"choices": [item]} for item in (choice, later)]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + chunk({}, "stop") + DONE


def _told(token: object, logprob: object) -> dict[str, object]:
    return {"token": token, "logprob": logprob}


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"token": "M", "top_logprobs": [_told("M", -0.25), _told("m", -2)]}]},
        {"tokens": ["M"], "token_logprobs": [-0.25], "top_logprobs": [{"M": -0.25, "m": -2}]},
        {"content": None, "top_logprobs": [{"M": -0.25, "m": -2, "x": None, "y": "z", "z": 1}]},
    ],
    ids=["openai", "together", "with what is none"],
)
def test_log_probabilities_of_the_first_token(logprobs: object) -> None:
    deltas = read(with_logprobs("M", logprobs))
    assert [delta.logprobs for delta in deltas if delta.logprobs] == [(("M", -0.25), ("m", -2.0))]
    assert all(type(value) is float for _, value in joined(deltas).logprobs or ())


@pytest.mark.parametrize(
    "logprobs", [-0.5, [], {"content": []}, {"content": [{}]}, {"top_logprobs": [[1]]}, {"a": 1}]
)
def test_log_probabilities_that_are_none(logprobs: object) -> None:
    told = joined(read(with_logprobs("M", logprobs).replace("later", "M")))
    assert told.text == "MM"
    assert told.logprobs in (None, (("M", -1.0),))


def test_tokens_have_one_shape_however_they_are_told() -> None:
    expected = [
        {"token": "M", "logprob": -0.25, "top_logprobs": [_told("M", -0.25), _told("m", -2)]},
        {"token": "!", "logprob": -0.5, "top_logprobs": []},
    ]
    lists = {"tokens": ["M", "!"], "token_logprobs": [-0.25, -0.5], "token_ids": [44, 0]}
    together = {**lists, "top_logprobs": [{"M": -0.25, "m": -2}]}
    for told in ({"content": expected}, together, {**together, "content": None}):
        choice = {"message": {"content": "M!"}, "logprobs": told, "finish_reason": "stop"}
        tokens = whole({"choices": [choice]})[0].token_logprobs
        assert [json.loads(token) for token in tokens] == expected
    # A stream of Together's has a number in each chunk.
    numbers = [
        {
            "index": 0,
            "delta": {"content": "M"},
            "logprobs": -0.25,
            "top_logprobs": {"M": -0.25, "m": -2},
        },
        {"index": 0, "delta": {"content": "!"}, "logprobs": -0.5},
        {"index": 0, "delta": {"content": "?"}, "logprobs": 0},
    ]
    stream = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in numbers)
    deltas = read(stream + chunk({}, "stop") + DONE)
    told_of_all = joined(deltas)
    assert told_of_all.text == "M!?"
    assert told_of_all.logprobs == (("M", -0.25), ("m", -2.0))
    tokens = tuple(token for delta in deltas for token in delta.token_logprobs)
    assert [json.loads(token) for token in tokens] == expected


@pytest.mark.parametrize(
    "told",
    [
        True,
        {"tokens": "M", "token_logprobs": {"a": 1}, "top_logprobs": 5},
        {"tokens": [1, None], "token_logprobs": ["x", {}], "top_logprobs": [{"M": "high"}, [1]]},
    ],
)
def test_tokens_of_no_shape_do_no_harm(told: object) -> None:
    choice = {"message": {"content": "M"}, "logprobs": told, "finish_reason": "stop"}
    delta = whole({"choices": [choice]})[0]
    assert (delta.text, delta.logprobs) == ("M", None)
    for token in map(json.loads, delta.token_logprobs):
        assert token == {"token": "", "logprob": None, "top_logprobs": []}


def test_log_probabilities_of_a_whole_completion() -> None:
    told = {"content": [{"top_logprobs": [_told("m", -0.5)]}]}
    choice = {"message": {"content": "m"}, "logprobs": told, "finish_reason": "length"}
    assert whole({"choices": [choice]})[0].logprobs == (("m", -0.5),)


async def _collect_of(model: str, pieces: list[str]) -> list[Delta]:
    source = _bytes([said(*pieces).encode()])
    async with aclosing(deltas_of(source, model=model)) as deltas:
        return [delta async for delta in deltas]


R1 = "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"


def test_what_a_model_thinks_whose_prompt_opens_the_tag_is_reasoning_while_it_comes() -> None:
    deltas = asyncio.run(_collect_of(R1, ["It ", "rains. </thi", "nk> Rain", "."]))
    assert not any(delta.replaces for delta in deltas)
    assert next(delta for delta in deltas if delta.text or delta.reasoning).reasoning
    assert (joined(deltas).reasoning, joined(deltas).text) == ("It rains.", "Rain.")


def test_such_a_model_that_has_not_thought_keeps_its_answer() -> None:
    deltas = asyncio.run(_collect_of(R1, ["Rain", "."]))
    assert (joined(deltas).reasoning, joined(deltas).text) == ("", "Rain.")
    # Its reasoning came in a field of its own.
    stream = chunk({"reasoning": "hm"}) + said("Rain", ".")
    source = _bytes([stream.encode()])
    whole_answer = joined(asyncio.run(_all(deltas_of(source, model=R1))))
    assert (whole_answer.reasoning, whole_answer.text) == ("hm", "Rain.")


async def _all(deltas: AsyncGenerator[Delta, None]) -> list[Delta]:
    async with aclosing(deltas):
        return [delta async for delta in deltas]


def test_the_thoughts_of_such_a_model_that_were_cut_are_no_answer() -> None:
    source = _bytes([(chunk({"content": "It rains"}) + chunk({}, "length") + DONE).encode()])
    cut = joined(asyncio.run(_all(deltas_of(source, model=R1))))
    assert (cut.reasoning, cut.text) == ("It rains", "")


def test_a_connection_that_breaks_behind_the_answer_breaks_nothing() -> None:
    async def broken(*pieces: str) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece.encode()
        raise OSError("reset")

    kept = broken(chunk({"content": "x"}), chunk({}, "stop"), 'data: {"usage": {"prom')
    assert joined(asyncio.run(_all(deltas_of(kept)))).text == "x"
    with pytest.raises(OSError, match="reset"):
        asyncio.run(_all(deltas_of(broken(chunk({"content": "x"})))))


def test_a_connection_that_stays_open_behind_the_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse_decoder, "_REST_SECONDS", 0.05)

    async def open_end() -> AsyncGenerator[bytes, None]:
        yield (chunk({"content": "x"}) + chunk({}, "stop")).encode()
        await asyncio.Event().wait()

    assert joined(asyncio.run(_all(deltas_of(open_end())))).text == "x"


def test_words_behind_a_finish_reason_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open WebUI ends each piece of reasoning with `stop`."""
    thoughts = [chunk({"reasoning_content": piece}, "stop") for piece in ("Hm ", "hm ", "hm.")]
    passed = 0.0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal passed
        for sent in (*thoughts, chunk({"content": "Rain."}), chunk({}, "stop") + DONE):
            yield sent.encode()
            passed += 1.0
            await asyncio.sleep(0.001)

    async def heard() -> Delta:
        loop = asyncio.get_running_loop()
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + passed)
        return joined(await _all(deltas_of(slowly())))

    told = asyncio.run(heard())
    assert (told.reasoning, told.text) == ("Hm hm hm.", "Rain.")


def test_half_of_an_event_at_the_end_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match="ended early"):
        read(chunk({"content": "x"}), 'data: {"choices": [{"del')
    assert joined(read(chunk({"content": "x"}, "stop"), 'data: {"usage": {"p')).text == "x"


def test_a_body_that_is_no_stream_is_told_by_its_words_if_it_has_any() -> None:
    with pytest.raises(ErrorObject) as raised:
        read("upstream is down")
    assert raised.value.payload == "upstream is down"
    with pytest.raises(BadResponse, match="not text"):
        read(b"\x0b\x02\x80hello\x03")
