"""What is not supported is refused in OpenAI's shape, naming the field; never a 5xx."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.values import keys_of
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.asked import MixtureFields
from moa_cli.server.wires.chat_request import ChatBody, parse
from tests.support.command import Moa
from tests.support.server import QUESTION, Server, serving
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Upstream]]:
    """One server for all that is refused."""
    with Upstream() as upstream:
        moa = Moa(tmp_path_factory.mktemp("machine"), upstream.url)
        with serving(moa, "--strict", "--max-body", "100000") as server:
            yield server, upstream
        assert upstream.chats() == []


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
TOOL = {"type": "function", "function": {"name": "f"}}
NAMED = {"type": "function", "function": {"name": "g"}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": user(None)}, "messages[0].content"),
    ({"messages": user([])}, "messages[0].content"),
    ({"messages": user(["hi"])}, "messages[0].content[0]"),
    ({"messages": user([IMAGE])}, "messages[0].content[0].image_url.url"),
    ({"messages": user([{"type": "image_url"}])}, "messages[0].content[0].image_url"),
    ({"messages": user([{"type": "input_audio"}])}, "messages[0].content[0].type"),
    ({"messages": user([{"type": "file", "file": {}}])}, "messages[0].content[0].file.file_data"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, *QUESTION]},
        "messages[0].tool_calls[0].function",
    ),
    ({"messages": [{"role": "assistant", "tool_calls": {}}, *QUESTION]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "tool", "tool_call_id": "1"}, *QUESTION]}, "messages[0].content"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"tools": {}}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
    ({"tools": [TOOL], "tool_choice": NAMED}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"messages": user([{"type": "text"}])}, "messages[0].content[0].text"),
    ({"messages": [{**QUESTION[0], "colour": 1}]}, "messages[0].colour"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
    ),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**300}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": {}}, "stop"),
    ({"seed": "x"}, "seed"),
    ({"seed": 2**70}, "seed"),
    ({"user": 5}, "user"),
    ({"n": True}, "n"),
    ({"logprobs": 0}, "logprobs"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{}]}, "functions[0].name"),
    ({"function_call": {"name": "f"}}, "tool_choice"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {}}, "audio"),
    ({"prediction": {}}, "prediction"),
    ({"store": True}, "store"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"metadata": "x"}, "metadata"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"top_k": 5}, "top_k"),
    ({"temprature": 1}, "temprature"),
    ({"moa": []}, "moa"),
    ({"moa": {"rounds": 11}}, "moa.rounds"),
    ({"moa": {"rounds": "two"}}, "moa.rounds"),
    ({"moa": {"proposers": "lab:a"}}, "moa.proposers"),
    ({"moa": {"proposers": []}}, "moa.proposers"),
    ({"moa": {"proposers": ["a b"]}}, "moa.proposers"),
    ({"moa": {"proposers": ["lab:a"] * 65}}, "moa.proposers"),
    ({"moa": {"proposers": ["lab:a", "local:/etc/passwd"]}}, "moa.proposers[1]"),
    ({"moa": {"aggregator": ""}}, "moa.aggregator"),
    ({"moa": {"aggregator": "local:../x.gguf"}}, "moa.aggregator"),
    ({"moa": {"samples": 0}}, "moa.samples"),
    ({"moa": {"samples": 64}}, "moa.samples"),
    ({"moa": {"strategy": "chorus"}}, "moa.strategy"),
    ({"moa": {"chosen_by": "nobody"}}, "moa.chosen_by"),
    ({"moa": {"final_answer": "regex:("}}, "moa.final_answer"),
    ({"moa": {"judge": "local:/etc/passwd"}}, "moa.judge"),
    ({"moa": {"one_call": "yes"}}, "moa.one_call"),
    ({"moa": {"reference_placement": "top"}}, "moa.reference_placement"),
    ({"moa": {"show_proposals": "yes"}}, "moa.show_proposals"),
    ({"moa": {"round": 1}}, "moa.round"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_wrong_field_is_named(
    served: tuple[Server, Upstream], fields: dict[str, Any], param: str
) -> None:
    response = served[0].ask(**fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert f"`{param}`" in error["message"] or param.split("[")[0] in error["message"]
    assert error["code"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"messages": user({"text": "hi"})},
            "`messages[0].content` must be a text or a list of objects, not an object",
        ),
        ({"messages": [None]}, "`messages[0]` must be an object, not null"),
        ({"messages": {}}, "`messages` must be a list of objects, not an object"),
        ({"stop": ["a", 1]}, "`stop` must be a text or a list of texts, not a list with 1"),
        (
            {"moa": {"proposers": [{}]}},
            "`moa.proposers` must be a list of texts, not a list with an object",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_json(
    served: tuple[Server, Upstream], fields: dict[str, Any], message: str
) -> None:
    assert served[0].ask(**fields).json()["error"]["message"] == message


def test_rounds_that_do_not_fit_the_profile_are_named_once(tmp_path: Path) -> None:
    moa = Moa(tmp_path, "http://127.0.0.1:9/v1")
    layers = [{"proposers": [{"model": "lab:a"}]}]
    moa.profile("layered", layers=layers)
    moa.profile("solo", rounds=0)
    said = {
        "layered": "`moa.rounds`: is 2, but the profile lists 1 layer",
        "solo": "`moa.rounds`: is 2, but there are no proposers",
    }
    with serving(moa) as server:
        for name, message in said.items():
            error = server.ask(model=name, moa={"rounds": 2}).json()["error"]
            assert (error["message"], error["param"]) == (message, "moa.rounds")


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(served: tuple[Server, Upstream], missing: str) -> None:
    response = served[0].ask(**{missing: None})
    assert (response.status_code, response.json()["error"]["param"]) == (400, missing)


def test_a_mistyped_field_gets_the_nearest_name(served: tuple[Server, Upstream]) -> None:
    message = served[0].ask(temprature=1).json()["error"]["message"]
    assert message == "unknown field `temprature`; did you mean `temperature`?"


def test_what_asks_for_nothing_is_harmless(server: Server, upstream: Upstream) -> None:
    harmless: dict[str, Any] = {
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "logprobs": False,
        "top_logprobs": None,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "stream_options": None,
        "temperature": None,
        "stop": [],
        "moa": {},
    }
    assert server.ask(**harmless).status_code == 200
    fields = {"model", "messages", "stream", "stream_options"}
    assert {frozenset(request.body) for request in upstream.chats()} == {frozenset(fields)}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"model": NaN}',
        b'{"model": "moa", "temperature": Infinity}',
        b"[" * 50_000,
        b'{"a":' * 15_000,
        b'{"max_tokens": ' + b"9" * 5_000 + b"}",
        json.dumps({"model": "moa", "messages": QUESTION}).encode("utf-16"),
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_what_is_no_json_object_is_a_400(served: tuple[Server, Upstream], body: bytes) -> None:
    server, _ = served
    url = f"{server.url}/chat/completions"
    response = server.http.post(url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_the_mark_that_windows_puts_before_a_text_is_named(served: tuple[Server, Upstream]) -> None:
    body = json.dumps({"model": "moa", "messages": QUESTION}).encode("utf-8-sig")
    headers = {"content-type": "application/json"}
    url = f"{served[0].url}/chat/completions"
    response = served[0].http.post(url, content=body, headers=headers)
    assert response.status_code == 400
    assert "begins with a byte order mark" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "name",
    [
        " `proposers",
        "a b `moa.rounds` is",
        "x\n`proposers[0].model`",
        "a\t`rounds",
        '`proposers" x',
        "[proposers] `samples`",
    ],
)
def test_a_name_that_looks_like_another_field_does_not_move_the_blame(
    served: tuple[Server, Upstream], name: str
) -> None:
    other = name.replace("proposers", "aggregator")
    fields: list[tuple[dict[str, Any], str]] = [
        ({"aggregator": name}, "moa.aggregator"),
        ({"proposers": ["lab:a", other]}, "moa.proposers"),
    ]
    for mixture, param in fields:
        response = served[0].ask(moa=mixture)
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == param
        assert error["message"].startswith(f"`{param}`: ")


def test_large_numbers_and_odd_texts_are_told_by_their_field(
    served: tuple[Server, Upstream],
) -> None:
    server, _ = served
    url = f"{server.url}/chat/completions"
    for text, param in (
        ('"temperature": 1e999', "temperature"),
        ('"\\ud800": 1', "\ud800"),
        ('"model": "\\ud800"', "model"),
    ):
        asked = '"messages": [{"role": "user", "content": "x"}], "model": "moa"'
        body = f"{{{asked}, {text}}}"
        headers = {"content-type": "application/json"}
        response = server.http.post(url, content=body, headers=headers)
        assert response.status_code in (400, 404)
        assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_read(served: tuple[Server, Upstream], kind: str | None) -> None:
    server, _ = served
    headers = {"content-type": kind} if kind else {}
    body = json.dumps({"model": "moa", "messages": QUESTION}).encode()
    response = server.http.post(f"{server.url}/chat/completions", content=body, headers=headers)
    assert response.status_code == 415
    error = response.json()["error"]
    assert "Content-Type" in error["message"]
    assert (error["code"], error["param"]) == ("unsupported_media_type", None)
    server.wait_for_log(rf" {response.headers['x-request-id']} .* 415 .* unsupported_media_type$")


def test_a_large_body_is_refused(served: tuple[Server, Upstream]) -> None:
    server, _ = served
    assert server.ask(messages=user("x" * 100_000)).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 1000

    headers = {"content-type": "application/json"}
    url = f"{server.url}/chat/completions"
    response = server.http.post(url, content=pieces(), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert response.json()["error"]["message"].endswith(" bytes (--max-body)")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/%00/%1b%5b31m", 404, "unknown_url"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "model_not_found"),
        ("HEAD", "/health", 200, None),
    ],
)
def test_other_paths_and_methods(
    served: tuple[Server, Upstream], method: str, path: str, status: int, code: str | None
) -> None:
    server, _ = served
    response = server.http.request(method, server.root + path)
    assert response.status_code == status
    if method != "HEAD":
        error = response.json()["error"]
        assert error["message"]
        assert error["code"] == code
        server.wait_for_log(rf" {response.headers['x-request-id']} .* {status} .* {code}$")
    assert "\x1b" not in "".join(server.log)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "temperature", "stop", "moa", "n", "seed"]
)


@settings(max_examples=300)
@given(st.dictionaries(_FIELDS | st.text(), _JSON))
def test_any_body_is_parsed_or_refused(fields: dict[str, Any]) -> None:
    body = {"model": "moa", "messages": QUESTION, **fields}
    with contextlib.suppress(ApiError):
        parse(json.dumps(body).encode())


def test_the_description_lists_every_field_that_is_read(served: tuple[Server, Upstream]) -> None:
    described = served[0].get("/openapi.json").json()
    request = described["components"]["schemas"]["ChatRequest"]["properties"]
    assert set(request) == keys_of(ChatBody).keys()
    assert set(request["moa"]["anyOf"][0]["properties"]) == keys_of(MixtureFields).keys()


def test_the_file_of_a_broken_profile_is_not_told(moa: Moa, tmp_path: Path) -> None:
    (moa.config / "profiles" / "broken.toml").write_text("rounds = 'x'\n")
    with serving(moa) as server:
        response = server.ask(model="broken")
    assert response.status_code == 404
    assert str(tmp_path) not in response.text


def test_a_model_that_the_server_cannot_ask_is_named(moa: Moa) -> None:
    with serving(moa, env={"OPENAI_API_KEY": None}) as server:
        keyless = server.ask(moa={"aggregator": "openai:gpt-4.1"})
        loaded = server.ask(moa={"proposers": ["lab:a", "local:/etc/passwd"]})
    assert (keyless.status_code, loaded.status_code) == (400, 400)
    assert keyless.json()["error"]["param"] == "moa.aggregator"
    assert "no API key for openai" in keyless.json()["error"]["message"]
    assert loaded.json()["error"]["param"] == "moa.proposers[1]"
    assert "an embedded model only" in loaded.json()["error"]["message"]
