"""Shapes of answers and errors that providers document, beside those that were recorded."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from tests.support.recordings import CHUNKINGS, Observed, Recording, differences, observe

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
COUNTED = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def events(*payloads: object, done: bool = True) -> str:
    """A stream of these chunks; a text is sent as it is."""
    lines = [
        item if isinstance(item, str) else f"data: {json.dumps(item)}\n\n" for item in payloads
    ]
    return "".join(lines) + ("data: [DONE]\n\n" if done else "")


def piece(content: object = None, finish: str | None = None, **delta: object) -> dict[str, Any]:
    told = {"content": content, **delta}
    return {"model": "m-1", "choices": [{"index": 0, "delta": told, "finish_reason": finish}]}


def whole(message: object, finish: str = "stop", **more: object) -> str:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"model": "m-1", "choices": [choice], **more})


def seen(body: str | bytes, status: int = 200, headers: dict[str, str] | None = None) -> Observed:
    """What the client makes of a body, where many calls are in flight, in small pieces."""
    raw = body.encode() if isinstance(body, str) else body
    kind = headers or (JSON if raw[:1] in (b"{", b"[") else EVENTS)
    recording = Recording("neighbour", status, kind, raw, {})
    return asyncio.run(observe(recording, CHUNKINGS["7 bytes"]))


def chat(**expected: Any) -> dict[str, Any]:
    plain = {"text": "Rain.", "reasoning": "", "finish_reason": "stop", "model": "m-1"}
    return {"kind": "chat", **plain, **expected}


def counts(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": cached,
        "reasoning_tokens": reasoning,
    }


def error(kind: str, words: str, *, again: bool = False, **more: Any) -> dict[str, Any]:
    told = {"error": kind, "retryable_before_first_token": again, "must_say": words}
    return {"kind": "error", **told, **more}


@pytest.mark.parametrize(
    ("usage", "beside", "expected"),
    [
        ({**COUNTED, "total_tokens": 32}, {}, {"usage": counts(20, 12)}),
        ({"prompt_tokens": 20, "total_tokens": 32}, {}, {"usage": counts(20, 12)}),
        (
            {**COUNTED, "total_tokens": 32, "prompt_tokens_details": {"audio_tokens": 7}},
            {},
            {"usage": counts(20, 5)},
        ),
        ({**COUNTED, "total_tokens": 3}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "total_tokens": 10**30}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "total_tokens": True}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "total_tokens": -9}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "num_cached_tokens": 8}, {}, {"usage": counts(20, 5, 8)}),
        ({**COUNTED, "cached_tokens": 8}, {}, {"usage": counts(20, 5, 8)}),
        ({**COUNTED, "cache_read_input_tokens": 8}, {}, {"usage": counts(20, 5, 8)}),
        # Of Bedrock: the total holds what its cache holds, and the prompt does not.
        (
            {
                **COUNTED,
                "total_tokens": 1025,
                "cache_read_input_tokens": 900,
                "cache_creation_input_tokens": 100,
            },
            {},
            {"usage": counts(1020, 5, 900)},
        ),
        (
            {**COUNTED, "input_tokens_details": {"cached_tokens": 8}},
            {},
            {"usage": counts(20, 5, 8)},
        ),
        ({**COUNTED, "reasoning_tokens": 4}, {}, {"usage": counts(20, 5, 0, 4)}),
        (
            {**COUNTED, "completion_tokens_details": {"reasoning_tokens": 6}},
            {},
            {"usage": counts(20, 5, 0, 5)},
        ),
        ({**COUNTED, "cost": 0.00012345}, {}, {"usage": counts(20, 5), "cost_usd": 0.00012345}),
        ({**COUNTED, "cost": "0.00012"}, {}, {"usage": counts(20, 5), "cost_usd": 0.00012}),
        (
            {**COUNTED, "cost": {"input_tokens_cost": 0.1, "output_tokens_cost": 0.2}},
            {},
            {"usage": counts(20, 5), "cost_usd": 0.3},
        ),
        (
            {**COUNTED, "cost_in_usd_ticks": 37_756_001},
            {},
            {"usage": counts(20, 5), "cost_usd": 0.0037756001},
        ),
        ({**COUNTED, "estimated_cost": 2e-06}, {}, {"usage": counts(20, 5), "cost_usd": 2e-06}),
        (COUNTED, {"cost": {"usd": 0.5, "diem": 0.5}}, {"usage": counts(20, 5), "cost_usd": 0.5}),
        (COUNTED, {"cost": 0.5}, {"usage": counts(20, 5), "cost_usd": 0.5}),
        ({**COUNTED, "cost": -0.5}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "cost": True}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "cost": "cheap"}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "cost": 0.5, "currency": "EUR"}, {}, {"usage": counts(20, 5)}),
        (
            {**COUNTED, "cost": {"total_cost": 0.5, "currency": "CNY"}},
            {},
            {"usage": counts(20, 5)},
        ),
        ({**COUNTED, "cost": 10**400}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "cost": {"input_tokens_cost": None}}, {}, {"usage": counts(20, 5)}),
        ({**COUNTED, "cost_in_usd_ticks": "many"}, {}, {"usage": counts(20, 5)}),
        ({"prompt_tokens": -1, "completion_tokens": 10**30, "total_tokens": 1.5}, {}, {}),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_usage_and_cost_in_every_place(
    usage: dict[str, Any], beside: dict[str, Any], expected: dict[str, Any], streamed: bool
) -> None:
    more = {"usage": usage, **beside}
    body = whole({"content": "Rain."}, **more)
    if streamed:
        body = events(piece("Rain."), piece(finish="stop"), {"choices": [], **more})
    assert differences(chat(**expected), seen(body)) == []


@pytest.mark.parametrize(
    "rest",
    [
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        {"usage": COUNTED},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 5}},
        {"usage": {"prompt_tokens": 20, "completion_tokens": 0}},
    ],
)
def test_what_a_last_usage_leaves_out_is_taken_from_the_one_before(rest: dict[str, Any]) -> None:
    end = {**piece(finish="stop"), "usage": {**COUNTED, "cost": 0.5}}
    body = events(piece("Rain."), end, {"choices": [], **rest})
    assert differences(chat(usage=counts(20, 5), cost_usd=0.5), seen(body)) == []


def test_a_cost_that_is_told_behind_the_usage_belongs_to_it() -> None:
    told = {"choices": [], "usage": COUNTED}, {"choices": [], "cost": {"usd": 0.5}}
    body = events(piece("Rain.", "stop"), *told)
    assert differences(chat(usage=counts(20, 5), cost_usd=0.5), seen(body)) == []


def test_a_cost_of_nothing_before_the_end_is_none_yet() -> None:
    interim = {**piece("Rain."), "usage": {**COUNTED, "cost": {"total_cost": 0}}}
    dropped = seen(events(interim, done=False))
    assert dropped.delta.usage is not None
    assert dropped.delta.usage.unpriced_calls == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "Rain.", "reasoning_text": "Hm."}, {"reasoning": "Hm."}),
        ({"content": "Rain.", "reasoning": {"content": "Hm."}}, {"reasoning": "Hm."}),
        (
            {
                "content": "Rain.",
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "Hm."},
                    {"type": "reasoning.encrypted", "data": "secret"},
                    {"type": "reasoning.text", "text": " Yes.", "signature": None},
                ],
            },
            {"reasoning": "Hm. Yes."},
        ),
        (
            {"content": "Rain.", "reasoning": "Hm.", "reasoning_details": [{"text": "Hm."}]},
            {"reasoning": "Hm."},
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Rain."},
                ]
            },
            {"reasoning": "Hm."},
        ),
        ({"content": [{"type": "reasoning", "text": "Hm."}, "Rain."]}, {"reasoning": "Hm."}),
        (
            {
                "content": [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    {"type": "text", "text": "Rain."},
                ]
            },
            {"reasoning": "Hm."},
        ),
        ({"content": "<thought>Hm.</thought>Rain."}, {"reasoning": "Hm."}),
        ({"content": "[THINK]Hm.[/THINK]Rain."}, {"reasoning": "Hm."}),
        (
            {
                "content": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
                "<|channel|>final<|message|>Rain.<|return|>"
            },
            {"reasoning": "Hm."},
        ),
        ({"content": "It rains.\n</think>\n\nRain."}, {"reasoning": "It rains."}),
        ({"content": "It rains.</think>\n\nRain."}, {"reasoning": "It rains."}),
        ({"content": "</think>\n\nRain."}, {}),
        ({"content": "\n</think> \nRain.", "reasoning": "Hm."}, {"reasoning": "Hm."}),
        ({"content": "</think> ends it."}, {"text": "</think> ends it."}),
        ({"content": "</think>"}, {"text": "</think>"}),
        ({"content": "<|channel>thought\nHm.<channel|>Rain."}, {"reasoning": "\nHm."}),
        (
            {"content": "Say </think> to end it."},
            {"text": "Say </think> to end it."},
        ),
        ({"content": "It ends with </think>"}, {"text": "It ends with </think>"}),
        (
            {"content": "```\nhm\n</think>\n\n```\nRain."},
            {"text": "```\nhm\n</think>\n\n```\nRain."},
        ),
        (
            {"content": "Okay, the user wants rain.\n</think>\n\nRain."},
            {"reasoning": "Okay, the user wants rain."},
        ),
        ({"content": "Okay, the user is right."}, {"text": "Okay, the user is right."}),
        ({"content": "Okay, here is rain."}, {"text": "Okay, here is rain."}),
        ({"content": "Okay."}, {"text": "Okay."}),
    ],
    ids=lambda value: json.dumps(value)[:70],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_reasoning_is_parted_from_the_answer(
    message: dict[str, Any], expected: dict[str, Any], streamed: bool
) -> None:
    body = whole(message)
    content = message["content"]
    if streamed and isinstance(content, str) and len(message) == 1:
        cuts = range(0, len(content), 5)
        body = events(*(piece(content[at : at + 5]) for at in cuts), piece(finish="stop"))
    elif streamed:
        body = events(piece(**message), piece(finish="stop"))
    assert differences(chat(**expected), seen(body)) == []


def test_a_model_that_is_known_to_think_may_close_its_thought_anywhere() -> None:
    text = "It rains </think>\nRain."
    for model, expected in (("m-1", {"text": text}), ("qwen3-8b", {"reasoning": "It rains"})):
        body = events({**piece(text), "model": model}, piece(finish="stop"))
        found = seen(body.replace("m-1", model))
        assert differences(chat(model=model, **expected), found) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (events(piece("Rain."), "data:\n\n", "data: \n\n", piece(finish="stop")), {}),
        (
            events(
                piece("Ra"), piece("in."), {**piece("Rain.", "stop"), "object": "chat.completion"}
            ),
            {},
        ),
        (
            events(
                *(piece(part) for part in ("It is ", "the falling ", "of water.")),
                piece("It is the falling of water.", "stop"),
            ),
            {"text": "It is the falling of water."},
        ),
        (events(piece("ha"), piece("ha", "stop")), {"text": "haha"}),
        (
            events(
                {"model": "m-1", "choices": [{"index": 0, "message": {"content": "Ra"}}]},
                {"choices": [{"message": {"content": "Rain."}, "finish_reason": "stop"}]},
            ),
            {},
        ),
        (
            events(
                {"model": "m-1", "choices": [{"index": 1, "delta": {"content": "Snow"}}]},
                piece("Rain."),
                {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
                piece(finish="stop"),
            ),
            {},
        ),
        (events(piece("Rain \ud83c"), piece("\udf27"), piece(finish="stop")), {"text": "Rain 🌧"}),
        (events(piece("Rain \ud83c"), piece(finish="stop")), {"text": "Rain \ufffd"}),
        (
            events(
                *(piece(reasoning=part) for part in ("Hm \ud83c", "\udf27", " \ud83c", ".")),
                piece("Rain.", "stop"),
            ),
            {"reasoning": "Hm 🌧 \ufffd."},
        ),
        (
            events(piece(refusal="No \ud83c"), piece(refusal="\udf27."), piece(finish="stop")),
            {"text": "", "refusal": "No 🌧.", "outcome": "refusal"},
        ),
        (
            "\n".join(map(json.dumps, [piece("Ra"), piece("in."), piece(finish="stop")])),
            {},
        ),
        (whole({"content": "Rain."}) + "\n\ndata: [DONE]\n\n", {}),
        (": keep-alive\n\n" + whole({"content": "Rain."}) + "\n", {}),
        # Servers that send one line end between events, where the standard has two.
        (events(piece("Ra"), piece("in."), piece(finish="stop")).replace("\n\n", "\n"), {}),
        (events(piece("Ra"), piece("in.", "stop")).replace("\n\ndata: [", "\ndata: ["), {}),
        ("\n  \n" + whole({"content": "Rain."}), {}),
        ("\ufeff" + whole({"content": "Rain."}), {}),
        (events(piece("Rain."), piece(finish="stop"), 'data: {"choi', done=False), {}),
        (whole(None, "stop").replace("null", '{"content": "Rain.", "refusal": null}'), {}),
        (
            whole({"content": None, "refusal": "I am sorry."}),
            {"text": "", "refusal": "I am sorry.", "outcome": "refusal"},
        ),
        (
            events(piece(refusal="I am "), piece(refusal="sorry."), piece(finish="stop")),
            {"text": "", "refusal": "I am sorry.", "outcome": "refusal"},
        ),
        (
            whole({"content": [{"type": "refusal", "refusal": "I am sorry."}]}),
            {"text": "", "refusal": "I am sorry.", "outcome": "refusal"},
        ),
        (
            events(piece(""), piece(finish="SAFETY")),
            {"text": "", "finish_reason": "SAFETY", "outcome": "content_filter"},
        ),
        (
            events(piece(reasoning="Hm."), piece(finish="MAX_TOKENS")),
            {
                "text": "",
                "reasoning": "Hm.",
                "finish_reason": "MAX_TOKENS",
                "outcome": "out of tokens while thinking",
            },
        ),
        (
            events(piece(""), piece(finish="content_filter: RECITATION")),
            {
                "text": "",
                "finish_reason": "content_filter: RECITATION",
                "outcome": "content_filter",
            },
        ),
        (
            whole({"role": "assistant"}, "function_call_filter: MALFORMED_FUNCTION_CALL"),
            {
                "text": "",
                "finish_reason": "function_call_filter: MALFORMED_FUNCTION_CALL",
                "outcome": "tool calls, no text",
            },
        ),
        (
            whole({"content": None, "function_call": {"name": "f"}}, "function_call"),
            {
                "text": "",
                "tool_calls": True,
                "finish_reason": "function_call",
                "outcome": "tool calls, no text",
            },
        ),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain", ""])
def test_an_answer_is_read_whatever_its_header_says(
    body: str, expected: dict[str, Any], kind: str
) -> None:
    headers = {"content-type": kind} if kind else {"x-none": "1"}
    assert differences(chat(**expected), seen(body, headers=headers)) == []


ROUTED = {"message": "Provider returned error", "code": 400}
ERRORS: list[tuple[int, object, dict[str, Any]]] = [
    (
        200,
        {"object": "error", "message": "no", "code": 429},
        error("rate_limited", "no", again=True),
    ),
    (200, {"detail": "Invalid API key"}, error("authentication", "Invalid API key")),
    (
        200,
        {"error_code": 110, "error_msg": "Access token invalid or no longer valid"},
        error("authentication", "Access token"),
    ),
    (
        200,
        {"error_code": 17, "error_msg": "Open api daily request limit reached"},
        error("rate_limited", "daily request limit", again=True),
    ),
    (200, {"error": {"code": "invalid_api_key"}}, error("authentication", "invalid_api_key")),
    (200, {"error": "overloaded"}, error("server_error", "overloaded", again=True)),
    (
        200,
        {"text": "**busy**", "error_code": 50001},
        error("server_error", "busy", again=True),
    ),
    (200, {"text": "gone", "error_code": 40301}, error("model_not_found", "gone")),
    (200, {"text": "long", "error_code": 40303}, error("context_too_long", "long")),
    (
        200,
        {"choices": [{"error": {"code": 502, "message": "bad gateway"}, "finish_reason": None}]},
        error("server_error", "bad gateway", again=True),
    ),
    (
        200,
        {"base_resp": {"status_code": 1002, "status_msg": "slow"}, "choices": None},
        error("rate_limited", "slow", again=True),
    ),
    (
        200,
        {"base_resp": {"status_code": 1026, "status_msg": "new risk"}},
        error("content_filter", "new risk"),
    ),
    (
        200,
        {"success": False, "errors": [{"code": 7009, "message": "upstream down"}]},
        error("server_error", "upstream down", again=True),
    ),
    (400, {"message": "模型不存在", "code": "1211"}, error("model_not_found", "模型不存在")),
    (
        403,
        {"error": {"code": "insufficient_user_quota", "message": "用户额度不足"}},
        error("no_credit", "额度不足"),
    ),
    (
        403,
        {"code": "x", "error": "Your newly created team doesn't have any credits yet."},
        error("no_credit", "credits"),
    ),
    (
        403,
        {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None},
        error("no_credit", "balance"),
    ),
    (
        429,
        {
            "error": {
                "message": "Rate limit exceeded: free-models-per-day. Add 10 credits",
                "code": 429,
            }
        },
        error("rate_limited", "free-models-per-day", again=True),
    ),
    (503, {"code": 50505, "message": "busy"}, error("server_error", "(503): busy", again=True)),
    (429, {"error": {"code": "1113", "message": "余额不足"}}, error("no_credit", "余额不足")),
    (
        403,
        {"error": {"message": "The free tier is used up", "code": "AllocationQuota.FreeTierOnly"}},
        error("no_credit", "free tier"),
    ),
    (
        500,
        {"error": {"message": "insufficient balance", "type": "x"}},
        error("no_credit", "insufficient balance"),
    ),
    (
        400,
        {"error": {"message": "API key expired", "details": [{"reason": "API_KEY_INVALID"}]}},
        error("authentication", "API key expired"),
    ),
    (
        403,
        {"error": {"message": 'Your input was flagged for "violence". No credits were charged.'}},
        error("content_filter", "flagged"),
    ),
    (
        403,
        {"error": {"code": "unsupported_country_region_territory", "message": "Country, region"}},
        error("refused", "Country"),
    ),
    (
        400,
        {"error": {"message": "User location is not supported for the API use."}},
        error("refused", "location"),
    ),
    (
        404,
        {"error": {"message": "No endpoints found matching your data policy", "code": 404}},
        error("refused", "data policy"),
    ),
    (
        404,
        {"error": {"message": "No endpoints found that support tool use", "code": 404}},
        error("refused", "tool use"),
    ),
    (
        404,
        {"error": {"message": "No endpoints found for x/y.", "code": 404}},
        error("model_not_found", "x/y"),
    ),
    (
        403,
        "<html><title>Attention Required! | Cloudflare</title></html>",
        error("refused", "Attention Required!"),
    ),
    (403, "error code: 1020", error("refused", "error code: 1020")),
    (
        401,
        {"error": {"code": "invalid_api_key", "message": None}},
        error("authentication", "refused the API key: invalid_api_key"),
    ),
    (
        422,
        {"errors": {"model": ["is unknown"]}},
        error("refused", '{"errors": {"model": ["is unknown"]}}'),
    ),
    (
        400,
        {"error": {**ROUTED, "metadata": {"raw": {"error": {"message": "odd", "code": 429}}}}},
        error("rate_limited", "odd", again=True),
    ),
    (
        502,
        {"error": {"message": 'Error code: 400 - {"error": {"message": "top_k is too high"}}'}},
        error("refused", "top_k is too high"),
    ),
    (
        400,
        {"error": {"message": "litellm.BadRequestError: {'error': {'message': 'odd field'}}"}},
        error("refused", "odd field"),
    ),
    (400, [{"error": {"code": 400, "message": "odd"}}], error("refused", "odd")),
    (
        413,
        {"error": {"message": "Request too large for model", "code": "request_too_large"}},
        error("context_too_long", "too large"),
    ),
    (
        400,
        {"error": {"message": "prompt token count of 9 exceeds the limit of 8"}},
        error("context_too_long", "exceeds the limit"),
    ),
    (
        400,
        {"error": {"message": "max_tokens exceeds the maximum of 8192 for this model"}},
        error("refused", "max_tokens"),
    ),
    (
        400,
        {"error": {"message": "System role not supported", "type": "x"}},
        error("refused", "System role"),
    ),
    (
        400,
        {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}},
        error("content_filter", "Content Exists Risk"),
    ),
    (
        403,
        {"message": "You don't have access to the model with the specified model ID."},
        error("model_not_found", "access to the model"),
    ),
    # What a server cannot do now, it cannot do in a moment.
    (
        500,
        {"error": "model requires more system memory (8.1 GiB) than is available (5.2 GiB)"},
        error("server_error", "use a smaller model"),
    ),
    (
        500,
        {"error": {"code": 500, "message": "Context size has been exceeded."}},
        error("server_error", "start it with a larger one"),
    ),
    (
        200,
        {"error": {"code": 500, "message": "Context size has been exceeded."}},
        error("server_error", "start it with a larger one"),
    ),
    (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        error("server_error", "Overloaded", again=True),
    ),
]


@pytest.mark.parametrize(("status", "body", "expected"), ERRORS, ids=lambda value: str(value)[:70])
def test_an_error_is_told_apart_by_what_it_says(
    status: int, body: object, expected: dict[str, Any]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    kind = {"content-type": "text/html"} if text.startswith("<") else JSON
    assert differences(expected, seen(text, status, kind)) == []


def test_a_refusal_whose_body_is_no_text_is_told_by_its_status() -> None:
    zipped = gzip.compress(b'{"error": "odd"}')
    found = seen(zipped, 400, {"content-type": "application/json"})
    assert differences(error("refused", "(400): Bad Request"), found) == []


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [row for row in ERRORS if row[0] == 200],
    ids=lambda value: str(value)[:70],
)
@pytest.mark.parametrize("line", ["data: ", "error: ", "event: error\ndata: "])
def test_an_error_in_a_stream_is_told_apart_as_well(
    status: int, body: object, expected: dict[str, Any], line: str
) -> None:
    assert differences(expected, seen(f"{line}{json.dumps(body)}\n\n", status)) == []


@pytest.mark.parametrize(
    "last",
    [
        'error: {"message": "it broke"}\n\n',
        'data: {"object": "error", "message": "it broke"}\n\n',
        'data: {"detail": "it broke"}\n\n',
        'data: {"text": "it broke", "error_code": 50001}\n\n',
        'data: {"base_resp": {"status_code": 1013, "status_msg": "it broke"}}\n\n',
        'data: {"choices": [{"error": {"message": "it broke"}, "finish_reason": "error"}]}\n\n',
        'data: {"choices": [{"error": {"message": "it broke"}, "finish_reason": "ERROR"}]}\n\n',
        'event: error\ndata: "it broke"\n\n',
        '{"error": {"message": "it broke"}}\n\n',
        'data: {"choices": []}\ndata: {"type": "error", "error": {"message": "it broke"}}\n\n',
        'data: {"choices": [{"delta": {}}], "x_groq": {"id": "r", "error": "it broke"}}\n\n',
        'data: {"choices": [{"delta": {}, "finish_reason": "stop"}], "base_resp": {"status_code": '
        '1000, "status_msg": "it broke"}}\n\n',
    ],
)
def test_an_answer_that_an_error_ends_is_not_taken_for_a_whole_one(last: str) -> None:
    expected = error("server_error", "it broke", again=True, text_before="Rai")
    assert differences(expected, seen(events(piece("Rai"), last))) == []


def test_what_was_used_is_known_also_where_an_error_ended_it() -> None:
    ended = {"error": {"message": "it broke", "code": 502}, "usage": COUNTED}
    for body in (json.dumps(ended), events(ended)):
        found = seen(body)
        assert found.delta.usage is not None
        assert found.delta.usage.completion_tokens == 5
        assert found.turn is not None
        assert found.turn.usage.completion_tokens == 5


def test_the_provider_that_a_router_had_asked_is_named_once() -> None:
    error = {"message": "Provider returned error", "code": 429}
    for raw, times in (("slow down", 1), ("Crucible says: slow down", 1)):
        metadata = {"raw": raw, "provider_name": "Crucible"}
        told = seen(json.dumps({"error": {**error, "metadata": metadata}}), 429).told
        assert told.count("Crucible") == times
        assert "Provider returned error" not in told


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please retry in 20.04466179s.", 20.04466179),
        ("Please try again in 1m30.5s. Visit", 90.5),
        ("Please try again in 250ms.", 0.25),
        ("try again in a while", None),
    ],
)
def test_how_long_to_wait_is_read_from_the_message(words: str, seconds: float | None) -> None:
    found = seen(json.dumps({"error": {"message": f"Rate limit reached. {words}"}}), 429)
    assert found.error is not None
    assert found.error.retry_after == seconds
