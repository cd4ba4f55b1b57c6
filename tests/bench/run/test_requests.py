"""What a run sends, in which order, and what it makes of failures."""

from __future__ import annotations

from tests.support.bench.own_runs import ANSWER, call_lines, item_lines, write_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

BUSY = Reply(status=500, error={"error": {"message": "out of order"}})


def prompt_of(request: Request) -> str:
    """The user's last message."""
    return str(request.messages[-1]["content"])


def failing(upstream: Upstream, model: str, *places: int) -> None:
    """Let a model fail at these calls, counted from 0; only where calls come one by one."""
    last = max(places) + 1
    upstream.enqueue(model, *[BUSY if place in places else ANSWER for place in range(last)])


def test_a_failed_item_is_tried_again_at_the_end(moa: Moa, upstream: Upstream) -> None:
    failing(upstream, "b", 1)
    ran = moa.run("bench", "run", write_prompts(moa, 4), "-y", "--concurrency", "1")
    assert ran.code == 0, ran.err
    # Only what was missing is sent: the second item's b, then its aggregator.
    assert [request.model for request in upstream.chats()][-2:] == ["b", "agg"]
    assert "thing 2" in prompt_of(upstream.chats()[-1])
    assert len(upstream.chats()) == 4 * 4 + 1
    lines = item_lines(moa.folder / "runs" / "mine-lab")
    assert [(line["item"], line["error"]) for line in lines] == [
        (f"{n}", None) for n in range(1, 5)
    ]


def test_what_fails_twice_is_recorded_as_failed(moa: Moa, upstream: Upstream) -> None:
    failing(upstream, "b", 1, 3)
    start = ["bench", "run", write_prompts(moa, 3), "-y", "--concurrency", "1"]
    ran = moa.run(*start)
    assert ran.code == 1
    assert "failed: mixture, item 2: lab:b: lab failed (500): out of order" in ran.text
    run = moa.folder / "runs" / "mine-lab"
    one = item_lines(run)[1]
    assert one["replies"] == []
    assert one["error"]["kind"] == "ServerFailed"
    assert one["turns"][0]["reply"] is None
    # Nobody was asked to reply in place of the mixture.
    assert not [r for r in upstream.chats("agg") if "thing 2" in prompt_of(r)]
    # The same command tries once more.
    assert moa.run(*start).code == 0
    assert [r.model for r in upstream.chats()][-2:] == ["b", "agg"]
    assert item_lines(run)[1]["error"] is None


def test_no_fallback_replies_for_the_aggregator(moa: Moa, upstream: Upstream) -> None:
    moa.profile("fall", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:other"]})
    upstream.always("agg", BUSY)
    ran = moa.run("bench", "run", write_prompts(moa, 2), "-p", "fall", "-y")
    assert ran.code == 1
    assert upstream.chats("other") == []
    assert len(upstream.chats("agg")) == 4


def test_an_empty_answer_is_a_failure_and_asked_for_again(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("a", Reply(text=" "))
    ran = moa.run("bench", "run", write_prompts(moa, 2), "-y", "--concurrency", "1")
    assert ran.code == 0
    assert len(upstream.chats("a")) == 3
    errors = [line["error"] for line in call_lines(moa.folder / "runs" / "mine-lab")]
    assert sorted(filter(None, errors)) == ["it gave no answer"]


def test_older_items_come_first(moa: Moa, upstream: Upstream) -> None:
    moa.run("bench", "run", write_prompts(moa, 6), "-y", "--concurrency", "2")
    ends = [line["item"] for line in call_lines(moa.folder / "runs" / "mine-lab")]
    # With room for two calls, the third item begins when the first has nothing left to ask.
    assert ends.index("3") >= 3
    assert set(ends[:6]) <= {"1", "2"}


def test_one_limit_for_all_and_one_for_each_provider(moa: Moa, upstream: Upstream) -> None:
    # None is answered before three are in flight.
    upstream.always("*", Reply(text=ANSWER.text, after=lambda: upstream.peak >= 3))
    start = ["bench", "run", write_prompts(moa, 8), "-y"]
    moa.run(*start, "--concurrency", "3", "-o", "one")
    assert upstream.peak == 3
    moa.run(*start, "--concurrency", "9", "--provider-concurrency", "2", "-o", "other")
    assert upstream.peak == 3


def test_retry_after_holds_back_the_whole_provider(moa: Moa, upstream: Upstream) -> None:
    moa.configure(retries=3, providers=moa.settings()["providers"])
    moa.profile("alone", rounds=0)
    error = {"error": {"message": "slow down"}}
    upstream.enqueue("agg", Reply(status=429, headers={"Retry-After": "1"}, error=error))
    upstream.enqueue("agg", Reply(text=ANSWER.text, delay=0.3))
    prompts = write_prompts(moa, 4)
    ran = moa.run("bench", "run", prompts, "-p", "alone", "-y", "--concurrency", "2")
    assert ran.code == 0, ran.err
    first, _, *others = upstream.chats()
    assert len(others) == 3
    assert min(other.at for other in others) - first.at > 0.95


def test_two_turns_are_one_conversation(moa: Moa, upstream: Upstream) -> None:
    row = {"question_id": 81, "category": "writing", "turns": ["First?", "Second?"]}
    write_lines(moa.folder / "data" / "mt_bench" / "question.jsonl", [row])
    # An item's turns belong together, whatever the profile says of a chat.
    ran = moa.run("bench", "run", "mt", "--data", "data", "--no-multi-turn", "-y")
    assert ran.code == 0, ran.err
    one = item_lines(moa.folder / "runs" / "mt-lab")[0]
    assert len(one["replies"]) == len(one["turns"]) == 2
    said = [m["content"] for m in upstream.chats("agg")[1].messages if m["role"] != "system"]
    assert said == ["First?", one["replies"][0], "Second?"]
    told = [m["content"] for m in upstream.chats("b")[1].messages]
    assert told == ["First?", one["replies"][0], "Second?"]
    for turn in one["turns"]:
        assert [answer["model"] for answer in turn["proposals"][0]] == ["lab:a", "lab:b", "lab:c"]
        assert all(answer["key"] for answer in [*turn["proposals"][0], turn["reply"]])
    assert one["usage"]["calls"] == 8


def test_messages_may_precede_a_prompt(moa: Moa, upstream: Upstream) -> None:
    before = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}]
    messages = [
        *before,
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "?!"},
    ]
    write_lines(moa.folder / "mine.jsonl", [{"id": "x", "messages": messages, "answer": 4}])
    ran = moa.run("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "--no-format")
    assert ran.code == 0, ran.err
    assert upstream.chats()[0].messages == messages
    assert item_lines(moa.folder / "runs" / "mine-lab")[0]["item"] == "x"
