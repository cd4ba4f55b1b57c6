"""Lists of models as providers write them: recorded ones byte for byte, and forms of each kind."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import Price, PriceTier
from moa_cli.models.model_list import read_list
from tests.support.command import Moa

_DATA = os.environ.get("MOA_TEST_DATA")
RECORDINGS = sorted(Path(_DATA, "recordings").glob("*-models*.json")) if _DATA else []
NAMES = {"hf": "huggingface", "llamacpp": "llamacpp"}


@contextmanager
def serving(recording: Mapping[str, Any]) -> Iterator[str]:
    """The base URL of a server that answers every GET with the recording, byte for byte."""
    body = recording.get("body")
    data = body.encode() if body is not None else base64.b64decode(recording["body_b64"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(recording["status"])
            for name, value in recording["headers"].items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def listed(moa: Moa, provider: str, url: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The rows of `moa models PROVIDER --json` by the model's id, and the lines without it."""
    environment = {f"{provider.upper()}_BASE_URL": url}
    for variable in ("_API_KEY", "_TOKEN"):
        environment[f"{'HF' if provider == 'huggingface' else provider.upper()}{variable}"] = "k-1"
    ran = moa.run("models", provider, "--json", env=environment)
    assert (ran.code, ran.err) == (0, "")
    lines = moa.run("models", provider, env=environment)
    assert lines.code == 0
    prefix = f"{provider}:"
    rows = {row["name"].removeprefix(prefix): row for row in json.loads(ran.text)}
    return rows, lines.text.splitlines()[1:]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_list_is_read(path: Any, moa: Moa) -> None:
    recording = json.loads(path.read_text())
    expected = dict(recording["expected"])
    assert expected.pop("kind") == "models"
    must_read = expected.pop("must_read", "names")
    assert expected == {}
    source = json.loads(recording["body"])["data"]
    start = path.stem.partition("-")[0]
    provider = NAMES.get(start, start)
    with serving(recording) as url:
        rows, lines = listed(moa, provider, url)
    ids = [row["id"].removeprefix("models/") for row in source]
    assert sorted(rows) == sorted(ids)
    assert len(lines) == len(ids)
    kinds = ["kind" not in row for row in rows.values()]
    assert kinds == sorted(kinds, reverse=True)
    assert any(kinds)
    MUST_READ[must_read](source, rows)
    for row in source:
        PLACES.get(path.stem, lambda row, made: None)(row, rows[row["id"].removeprefix("models/")])


def _contexts(source: list[Any], rows: Mapping[str, Any]) -> None:
    for row in source:
        assert rows[row["id"]]["context_length"] == row["context_window"]


def _hosts(source: list[Any], rows: Mapping[str, Any]) -> None:
    for row in source:
        made = rows[row["id"]]
        hosts = [host for host in row["providers"] if host["status"] == "live"]
        prices = [host["pricing"] for host in hosts if "pricing" in host]
        told = (made["prompt_usd_per_million"], made["completion_usd_per_million"])
        if prices:
            assert told in [(price["input"], price["output"]) for price in prices]
            assert sum(told) == max(price["input"] + price["output"] for price in prices)
        contexts = [host["context_length"] for host in row["providers"] if "context_length" in host]
        if contexts:
            assert made["context_length"] == max(contexts)


def _cached(source: list[Any], rows: Mapping[str, Any]) -> None:
    for row in source:
        made, price = rows[row["id"]], row.get("pricing")
        if price and "output" in price:
            assert made["prompt_usd_per_million"] == price["input"]
            assert made["completion_usd_per_million"] == price["output"]
            assert made.get("cached_usd_per_million") == price.get("cache_read")
            assert "price_from_table" not in made


def _names(source: list[Any], rows: Mapping[str, Any]) -> None:
    assert {row["id"] for row in source} == rows.keys()


def _prefixed(source: list[Any], rows: Mapping[str, Any]) -> None:
    assert all(row["id"].startswith("models/") for row in source)
    assert not any(name.startswith("models/") for name in rows)


MUST_READ = {
    "names": _names,
    "context of every model": _contexts,
    "context and price of every model that a provider prices": _hosts,
    "prices, the cached one included": _cached,
    "names with and without the models/ prefix are the same model": _prefixed,
}


def _per_token(row: Any, made: Any) -> None:
    assert made["context_length"] == row["context_length"]
    pricing = row.get("pricing", {})
    if "completion" in pricing:
        for name, key in (("prompt", "prompt"), ("completion", "completion")):
            assert made[f"{key}_usd_per_million"] == pytest.approx(float(pricing[name]) * 1e6)
        assert made.get("cached_usd_per_million") == (
            pytest.approx(float(pricing["input_cache_read"]) * 1e6)
            if "input_cache_read" in pricing
            else None
        )
    starts = [tier["min_prompt_tokens"] - 1 for tier in pricing.get("overrides", [])]
    assert [tier["above"] for tier in made.get("tiers", [])] == starts


def _meta(row: Any, made: Any) -> None:
    assert made["context_length"] == row["meta"]["n_ctx"]


PLACES: dict[str, Any] = {
    "groq-models-2026-pricing": _per_token,
    "openrouter-models": _per_token,
    "llamacpp-models-meta": _meta,
}


def one(row: object) -> ModelInfo:
    found = read_list([row])
    assert found is not None
    (info,) = found
    return info


@pytest.mark.parametrize(
    "row",
    [
        {"context_length": 4096},
        {"context_length": "4096"},
        {"context_length": 4096.0},
        {"context_window": 4096},
        {"max_context_length": 4096},
        {"max_model_len": 4096},
        {"max_input_tokens": 4096},
        {"inputTokenLimit": 4096},
        {"context_length": None, "max_model_len": 4096},
        {"context_length": 0, "top_provider": {"context_length": 4096}},
        {"meta": {"n_ctx": 4096, "n_ctx_train": 8192}},
        {"meta": {"n_ctx_train": 4096}},
        {"capabilities": {"limits": {"max_context_window_tokens": 4096}}},
        {"model_spec": {"availableContextTokens": 4096}},
        {"metadata": {"context_length": 4096}},
        {"providers": [{"status": "live"}, {"context_length": 4096}, {"context_length": 512}]},
    ],
)
def test_a_context_is_found_wherever_it_stands(row: dict[str, Any]) -> None:
    assert one({"id": "m", **row}).context_length == 4096


@pytest.mark.parametrize(
    ("row", "tools"),
    [
        ({"supported_parameters": ["temperature", "tools", "tool_choice"]}, True),
        ({"supported_parameters": ["temperature"]}, False),
        ({"supported_parameters": []}, None),
        ({"supported_features": ["json_mode"]}, False),
        ({"supported_features": ["json_mode", "tools"]}, True),
        ({"features": ["function-calling", "reasoning"]}, True),
        ({"features": ["reasoning"]}, None),
        ({"tags": ["tool-use", "vision"]}, True),
        ({"tags": ["vision"]}, None),
        ({"capabilities": ["completion", "tools"]}, True),
        ({"capabilities": ["completion", "vision"]}, False),
        ({"capabilities": ["tool_use"]}, True),
        ({"capabilities": ["streaming"]}, None),
        ({"capabilities": {"function_calling": True, "vision": False}}, True),
        ({"capabilities": {"function_calling": False}}, False),
        ({"capabilities": {"supports": {"tool_calls": True}}}, True),
        ({"capabilities": {"tool_use": {"supported": True}}}, True),
        ({"model_spec": {"capabilities": {"supportsFunctionCalling": False}}}, False),
        ({"supports_tools": True}, True),
        ({"supports_tools": "yes"}, None),
        ({"providers": [{"supports_tools": False}, {"supports_tools": True}]}, True),
        ({"providers": [{"supports_tools": False}]}, False),
        ({"providers": [{"supports_tools": False}, {}]}, None),
        (
            {"providers": [{"supports_tools": False}, {"status": "down", "supports_tools": True}]},
            False,
        ),
        ({"tools": [1]}, None),
        ({}, None),
    ],
)
def test_whether_a_model_calls_tools_is_found_where_it_is_said(
    row: dict[str, Any], tools: bool | None
) -> None:
    assert one({"id": "m", **row}).tools is tools


@pytest.mark.parametrize(
    "value", [True, "many", -1, 0, 4.5, float("inf"), float("nan"), [4096], None, "1e999"]
)
def test_what_is_no_context_is_unknown(value: object) -> None:
    assert one({"id": "m", "context_length": value}).context_length is None


PLAIN, UNCACHED = Price(0.3, 1.2, 0.03), Price(0.3, 1.2)


@pytest.mark.parametrize(
    ("row", "price"),
    [
        ({"pricing": {"input": 0.3, "output": 1.2, "cached_input": 0.03}}, PLAIN),
        ({"pricing": {"input": 0.3, "output": 1.2, "cache_read": 0.03}}, PLAIN),
        (
            {
                "pricing": {
                    "prompt": "0.0000003",
                    "completion": "0.0000012",
                    "input_cache_read": "0.00000003",
                }
            },
            PLAIN,
        ),
        ({"pricing": {"prompt": 3e-7, "completion": 1.2e-6, "input_cache_read": 3e-8}}, PLAIN),
        (
            {
                "pricing": {
                    "input": "0.0000003",
                    "output": "0.0000012",
                    "input_cache_read": "0.00000003",
                }
            },
            PLAIN,
        ),
        ({"pricing": {"input": "0.3", "output": "1.2"}}, UNCACHED),
        (
            {"pricing": {"input": 0.0003, "output": 0.0012, "unit": "usd_per_1k_tokens"}},
            Price(0.3, 1.2),
        ),
        (
            {"model_spec": {"pricing": {"input": {"usd": 0.3}, "output": {"usd": 1.2}}}},
            Price(0.3, 1.2),
        ),
        ({"metadata": {"pricing": {"input_tokens": 0.3, "output_tokens": 1.2}}}, UNCACHED),
        (
            {
                "prompt_text_token_price": 3000,
                "completion_text_token_price": 12000,
                "cached_prompt_text_token_price": 300,
            },
            PLAIN,
        ),
        ({"input_token_price_per_m": 3000, "output_token_price_per_m": 12000}, UNCACHED),
        (
            {"pricing": {"prompt": "0.0000003", "completion": "0.0000012", "request": "0.005"}},
            Price(0.3, 1.2, None, 0.005),
        ),
        (
            {
                "pricing": {
                    "input": "0.000003",
                    "output": "0.000015",
                    "input_tiers": [
                        {"cost": "0.000003", "min": 0, "max": 200001},
                        {"cost": "0.000006", "min": 200001},
                    ],
                }
            },
            Price(3.0, 15.0, None, 0.0, (PriceTier(200000, 6.0, 15.0),)),
        ),
        ({"pricing": {"prompt": "-1", "completion": "-1"}}, None),
        ({"pricing": {"prompt": "0.1"}}, None),
        ({"pricing": {"input": 0, "output": 0}}, None),
        ({"pricing": {"input": 1e9, "output": 1}}, None),
        ({"pricing": "cheap"}, None),
        ({"pricing": {"input": 0.3, "output": 1.2, "currency": "usd"}}, UNCACHED),
        ({"pricing": {"input": 2.1, "output": 8.4, "currency": "CNY"}}, None),
        ({"currency": "EUR", "pricing": {"input": 0.3, "output": 1.2}}, None),
    ],
)
def test_a_price_is_found_in_any_form(row: dict[str, Any], price: Price | None) -> None:
    assert one({"id": "m", **row}).price == price


@pytest.mark.parametrize(
    "payload",
    [
        ["m"],
        [{"id": "m"}],
        {"data": [{"id": "m"}]},
        {"models": [{"name": "models/m", "displayName": "M"}]},
        {"models": [{"model": "m", "name": "m"}]},
        {"data": {"models": [{"id": "m"}]}},
        {"models": {"m": {"context_length": 5}}},
        {"object": "list", "data": [{"id": "m"}, {"id": "m"}, {"id": 3}, None, {"id": " "}]},
    ],
)
def test_a_list_may_have_several_forms(payload: object) -> None:
    found = read_list(payload)
    assert found is not None
    assert [info.id for info in found] == ["m"]


@pytest.mark.parametrize("payload", [None, 3, "x", {}, {"data": "x"}, {"error": {"message": "no"}}])
def test_what_is_no_list_is_not_taken_for_one(payload: object) -> None:
    assert read_list(payload) is None


@pytest.mark.parametrize(
    ("kind", "models"),
    [
        ("chat", "gpt-4o o1 llama-3.3-70b-versatile Qwen/Qwen3-VL-8B-Instruct claude-opus-4-5"),
        ("embedding", "text-embedding-3-small BAAI/bge-m3 nomic-embed-text embedding-001"),
        ("audio", "whisper-1 tts-1-hd gpt-4o-transcribe gpt-realtime canopylabs/orpheus-v1"),
        ("image", "dall-e-3 gpt-image-1 imagen-4.0 black-forest-labs/FLUX.1-dev"),
        ("video", "sora-2 veo-3.0-generate-001"),
        ("moderation", "omni-moderation-latest meta-llama/llama-guard-4-12b"),
        ("rerank", "Salesforce/Llama-Rank-rerank"),
        ("other", "davinci-002 babbage-002 gpt-3.5-turbo-instruct aqa"),
    ],
)
def test_what_a_model_makes_is_told_by_its_name(kind: str, models: str) -> None:
    assert {model: one(model).kind for model in models.split()} == dict.fromkeys(
        models.split(), kind
    )


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"type": "embedding"}, "embedding"),
        ({"type": "model"}, "chat"),
        ({"output_modalities": ["speech"]}, "audio"),
        ({"architecture": {"output_modalities": ["image"]}}, "image"),
        ({"architecture": {"output_modalities": ["image", "text"]}}, "chat"),
        ({"capabilities": {"completion_chat": False}}, "other"),
        ({"supportedGenerationMethods": ["embedContent"]}, "embedding"),
    ],
)
def test_what_a_list_says_of_what_a_model_makes_holds(row: dict[str, Any], kind: str) -> None:
    assert one({"id": "m", **row}).kind == kind
