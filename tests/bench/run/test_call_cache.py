"""Runs that name the same cache folder pay once for the same request."""

from __future__ import annotations

import stat
from collections import Counter
from itertools import count

import pytest

from tests.support.bench.own_runs import call_lines, item_lines, write_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

PRICE = {"prompt": 1000.0, "completion": 2000.0}


@pytest.fixture
def cached(moa: Moa, upstream: Upstream) -> Moa:
    """Models that say something new each time they are asked, at a price."""
    numbers = count()
    upstream.always("*", Reply(text=lambda _: f"answer number {next(numbers)}", usage=(100, 10)))
    prices = {f"lab:{name}": PRICE for name in ("a", "b", "agg", "other")}
    moa.configure(providers=moa.settings()["providers"], prices=prices)
    moa.profile("two", "a", "b", max_tokens=50)
    moa.profile("three", "a", "b", "other", max_tokens=50)
    return moa


def run(moa: Moa, *arguments: str, cache: str = "cache") -> str:
    ran = moa.run("bench", "run", *arguments, "-y", "--cache", cache)
    assert ran.code == 0, ran.err
    return ran.err + ran.text


def test_the_second_run_pays_only_what_is_new(cached: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(cached, 5)
    run(cached, prompts, "-p", "two", "-o", "first")
    assert len(upstream.chats()) == 15
    told = run(cached, prompts, "-p", "three", "-o", "second")
    assert Counter(request.model for request in upstream.chats()[15:]) == {"other": 5, "agg": 5}
    assert "10 calls; " in told
    assert "10 calls came from the cache" in told
    # Ten calls of $0.12.
    assert "spent in all" in told
    assert "$1.20" in told
    # A run stands alone: it holds all of its calls.
    assert len(call_lines(cached.folder / "second")) == 20
    first, second = (item_lines(cached.folder / name) for name in ("first", "second"))
    for narrow, wide in zip(first, second, strict=True):
        assert [answer["text"] for answer in narrow["turns"][0]["proposals"][0]] == [
            answer["text"] for answer in wide["turns"][0]["proposals"][0]
        ][:2]


def test_an_equal_run_is_equal_to_the_byte_and_free(cached: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(cached, 4)
    start = [prompts, "-p", "two", "--arms", "mixture,self,single"]
    run(cached, *start, "-o", "first")
    asked = len(upstream.chats())
    told = run(cached, *start, "-o", "second")
    assert len(upstream.chats()) == asked
    assert "0 calls; " in told
    for name in ("run.json", "items.jsonl"):
        assert (cached.folder / "first" / name).read_bytes() == (
            cached.folder / "second" / name
        ).read_bytes()


def test_without_a_cache_each_run_asks_for_itself(cached: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(cached, 2)
    run(cached, prompts, "-p", "two", "-o", "first")
    assert cached.run("bench", "run", prompts, "-p", "two", "-o", "second", "-y").code == 0
    run(cached, prompts, "-p", "two", "-o", "third", cache="another")
    assert len(upstream.chats()) == 3 * 6


def test_other_files_share_what_they_have_in_common(cached: Moa, upstream: Upstream) -> None:
    write_lines(cached.folder / "one.jsonl", [{"prompt": text} for text in "xyz"])
    write_lines(cached.folder / "two.jsonl", [{"prompt": text} for text in "wyx"])
    run(cached, "one.jsonl", "-p", "two", "-o", "first")
    run(cached, "two.jsonl", "-p", "two", "-o", "second")
    assert len(upstream.chats()) == (3 + 1) * 3


def test_equal_items_of_a_run_have_answers_of_their_own(cached: Moa, upstream: Upstream) -> None:
    write_lines(cached.folder / "twins.jsonl", [{"prompt": "the same"}, {"prompt": "the same"}])
    run(cached, "twins.jsonl", "-p", "two", "-o", "first")
    assert len(upstream.chats()) == 6
    first = [line["replies"] for line in item_lines(cached.folder / "first")]
    assert first[0] != first[1]
    run(cached, "twins.jsonl", "-p", "two", "-o", "second")
    assert [line["replies"] for line in item_lines(cached.folder / "second")] == first


def test_a_damaged_answer_is_asked_again(cached: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(cached, 2)
    run(cached, prompts, "-p", "two", "-o", "first")
    files = sorted((cached.folder / "cache").rglob("*.json"))
    assert len(files) == 6
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    for file in files[:2]:
        file.write_bytes(file.read_bytes()[:30])
    upstream.requests.clear()
    run(cached, prompts, "-p", "two", "-o", "second")
    assert len(upstream.chats()) >= 2


def test_another_address_is_another_request(cached: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(cached, 1)
    run(cached, prompts, "-p", "two", "-o", "first")
    providers = cached.settings()["providers"]
    providers["lab"]["base_url"] = upstream.url.replace("127.0.0.1", "localhost")
    cached.configure(providers=providers)
    run(cached, prompts, "-p", "two", "-o", "second")
    assert len(upstream.chats()) == 6
