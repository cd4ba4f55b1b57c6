"""The prices that come with `moa`, and what a call costs at a price with tiers and fees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from moa_cli.config.schema import to_config
from moa_cli.core.conversation import Usage
from moa_cli.core.errors import ProfileError
from moa_cli.core.money import Price, PriceTier, check_price
from moa_cli.models.names import find_model, find_similar
from moa_cli.models.price_table import from_table
from moa_cli.models.table import BUILT_IN
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream


def used(prompt: int, completion: int, cached: int = 0, calls: int = 1) -> Usage:
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, calls=calls
    )


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-06"),
        ("openai", "GPT-4o"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("together", "deepseek-ai/DeepSeek-V3"),
        ("openrouter", "openai/gpt-4o:nitro"),
        ("google", "models/gemini-2.5-flash"),
        ("azure", "gpt-4o"),
        ("azure", "grok-3"),
        ("huggingface", "openai/gpt-oss-120b"),
        ("huggingface", "openai/gpt-oss-120b:novita"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b"),
        ("together", "Qwen/Qwen2.5-72B-Instruct-Turbo"),
        ("together", "databricks/dbrx-instruct"),
    ],
)
def test_the_table_knows_current_and_retired_models_in_any_form(provider: str, model: str) -> None:
    info = from_table(provider, model)
    assert info is not None
    assert info.price is not None
    assert info.price.prompt > 0
    assert info.price.completion > 0


def test_what_the_table_does_not_have_is_unknown() -> None:
    assert from_table("openai", "no-such-model") is None
    assert from_table("nowhere", "gpt-4o") is None


def test_a_model_that_is_free_by_its_name_is_free() -> None:
    info = from_table("openrouter", "openai/gpt-oss-120b:free")
    assert info is not None
    assert info.price == Price(0.0, 0.0)


def test_a_router_that_does_not_say_who_answers_is_taken_at_its_highest_price() -> None:
    hosts = [
        from_table("huggingface", f"openai/gpt-oss-120b:{name}") for name in ("novita", "groq")
    ]
    whole = from_table("huggingface", "openai/gpt-oss-120b")
    assert whole is not None
    assert whole.price is not None
    for host in hosts:
        assert host is not None
        assert host.price is not None
        assert host.price.completion <= whole.price.completion


def test_every_entry_of_the_table_is_a_possible_price() -> None:
    from moa_cli.models import price_table

    tables = price_table._providers()
    named = {provider.price_table for provider in BUILT_IN.values() if provider.price_table}
    assert named - {"huggingface"} <= tables.keys()
    for rows in tables.values():
        for _, context, phases in rows:
            check_price(price_table._price(phases))
            assert context is None or context > 0


TIERED = Price(3, 15, 0.3, 0.005, (PriceTier(200_000, 6, 22.5, 0.6),))


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (used(0, 0), 0.005),
        (used(1000, 500), 0.0155),
        (used(200_000, 0), 0.605),
        (used(200_001, 0), 1.205006),
        (used(200_001, 1, cached=100_000), 0.6650285),
        # Two calls of half as many tokens each stay below the tier.
        (used(300_000, 0, calls=2), 0.91),
    ],
)
def test_a_call_costs_its_tokens_at_the_tier_of_its_prompt_and_its_fee(
    usage: Usage, cost: float
) -> None:
    assert TIERED.of(usage) == cost


def test_a_cost_is_exact_to_the_last_digit() -> None:
    assert Price(0.1, 0.2).of(used(3, 0)) == 3e-07
    assert Price(0.3, 0.5).of(used(199, 9)) == 6.42e-05


def test_tiers_and_fees_of_the_settings_are_read() -> None:
    table = {
        "lab:a": {
            "prompt": 1,
            "completion": 2,
            "cached": 0.5,
            "request": 0.01,
            "tiers": [{"above": 1000, "prompt": 10, "completion": 20}],
        }
    }
    price = to_config({"prices": table}, "config.toml").prices["lab:a"]
    assert price == Price(1.0, 2.0, 0.5, 0.01, (PriceTier(1000, 10.0, 20.0),))


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"request": -1}, "request"),
        ({"tiers": [{"above": -1, "prompt": 1, "completion": 1}]}, "tiers[1].above"),
        ({"tiers": [{"above": 1, "prompt": 1}]}, "tiers[1].completion"),
        ({"tiers": {"above": 1}}, "tiers"),
    ],
)
def test_a_wrong_tier_is_refused_by_its_place(more: Mapping[str, Any], path: str) -> None:
    with pytest.raises(ProfileError) as raised:
        to_config({"prices": {"m": {"prompt": 1, "completion": 1, **more}}}, "config.toml")
    assert f"`prices.m.{path}`" in raised.value.message


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("qwen/qwen3-32b:nitro", "qwen/qwen3-32b"),
        ("openai/gpt-oss-120b:novita", "openai/gpt-oss-120b"),
        ("llama3", "llama3:latest"),
        ("META-llama/llama-3", "meta-llama/Llama-3"),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("mistral-large", "mistral-large-2411"),
    ],
)
def test_a_model_is_found_under_another_form_of_its_id(asked: str, listed: str) -> None:
    assert find_model(asked, {"other": 0, listed: 1}) == 1


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("llama3:8b", "llama3"),
        ("llama3", "llama3:8b"),
        ("qwen/qwen3:free", "qwen/qwen3"),
        ("gpt-4", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o"),
    ],
)
def test_another_model_is_not_taken_for_it(asked: str, listed: str) -> None:
    assert find_model(asked, {listed: 1}) is None


def test_of_several_dates_the_newest_is_meant() -> None:
    dated = {"gpt-4o-2024-05-13": 1, "gpt-4o-2024-11-20": 3, "gpt-4o-2024-08-06": 2}
    assert find_model("gpt-4o", dated) == 3
    assert find_similar("gpt-4o-2023-01-01", dated) == 3


def test_a_cap_holds_for_a_model_that_no_list_prices(moa: Moa) -> None:
    retired = "deepseek-ai/DeepSeek-V3"
    with Upstream(api_key="k-together", models=["other"]) as up:
        up.always(retired, Reply(text="hello", usage=(1000, 2000)))
        moa.profile("old", aggregator={"model": f"together:{retired}"}, rounds=0)
        environment = {"TOGETHER_BASE_URL": up.url, "TOGETHER_API_KEY": "k-together"}
        ran = moa.run("ask", "-p", "old", "--max-cost", "5", "--json", "hi", env=environment)
        assert ran.code == 0, ran.err
        info = from_table("together", retired)
        assert info is not None
        assert info.price is not None
        usage = json.loads(ran.text)["usage"]
        assert usage["unpriced_calls"] == 0
        assert usage["cost"] == info.price.of(used(1000, 2000))
        listed = json.loads(moa.run("models", "together", "--json", env=environment).text)
        assert [row["prompt_usd_per_million"] for row in listed] == [None]


def test_a_server_of_ones_own_has_no_prices_of_the_table(moa: Moa) -> None:
    with Upstream(models=["deepseek-chat", "gpt-4o"]) as up:
        moa.configure(providers={"deepseek": {"base_url": up.url}})
        ran = moa.run("models", "deepseek", "--json")
        assert {row["prompt_usd_per_million"] for row in json.loads(ran.text)} == {None}
