"""`moa batch --provider-batch`: layer by layer through jobs, none of which is handed in twice."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.batch_provider import BatchProvider, Refusal, says
from tests.support.bench.own_runs import write_lines
from tests.support.command import KEY, Moa, Ran

# USD per million tokens; a call of 100 tokens in and 10 out costs 2e-6 by it, in a job half.
PRICE = {"prompt": 0.01, "completion": 0.1}
CALL = 1e-6


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider(KEY) as made:
        yield made


@pytest.fixture
def moa(tmp_path: Path, provider: BatchProvider) -> Moa:
    moa = Moa(tmp_path, provider.url)
    moa.profile("mix", "a", "b", rounds=2)
    lab = {**moa.settings()["providers"]["lab"], "batch_price": 0.5}
    prices = {f"lab:{name}": PRICE for name in ("a", "b", "agg")}
    moa.configure(profile="mix", providers={"lab": lab}, prices=prices)
    write_lines(
        moa.folder / "in.jsonl", [{"id": f"q{n}", "prompt": f"thing {n}"} for n in (1, 2, 3)]
    )
    return moa


START = ("batch", "in.jsonl", "out.jsonl", "--provider-batch", "--proposals")


def run(moa: Moa, *options: str) -> Ran:
    return moa.run(*START, *options)


def answers(moa: Moa, name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (moa.folder / name).read_text().splitlines()]


def handed_in_twice(provider: BatchProvider) -> list[str]:
    """The ids of requests that stand in several jobs."""
    times = Counter(request["custom_id"].rpartition("/")[2] for request in provider.requests())
    return [name for name, count in times.items() if count > 1]


def test_a_mixture_of_two_layers_runs_through_five_jobs_at_half_the_price(
    moa: Moa, provider: BatchProvider
) -> None:
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    found = answers(moa)
    assert [line["id"] for line in found] == ["q1", "q2", "q3"]
    # Two proposers, twice, and the aggregator.
    assert len(provider.jobs) == 5
    assert handed_in_twice(provider) == []
    assert len(provider.requests()) == 15
    for line in found:
        assert line["reply"].startswith("agg says ")
        assert [[said["model"] for said in layer] for layer in line["proposals"]] == [
            ["lab:a", "lab:b"]
        ] * 2
        assert line["usage"]["calls"] == 5
        assert line["cost"] == pytest.approx(5 * CALL)
    # The second layer was asked with the answers of the first.
    second = [r for r in provider.requests() if "a says" in json.dumps(r["body"]["messages"])]
    assert len(second) == 9
    assert "cost: between" in ran.err
    assert "3 of 3 answers in out.jsonl" in ran.err
    assert "$0.000015" in ran.err
    # What was spent has them at that price, too.
    assert "$0.000015" in moa.run("history", "stats").text
    card = json.loads((moa.folder / "out.jsonl.card.json").read_bytes())
    assert card["provider_batch"] is True
    assert card["models"]["lab:a"]["known_cost"] == pytest.approx(6 * CALL)
    price = card["models"]["lab:a"]["price"]
    assert {name: price[name] * 2 for name in PRICE} == pytest.approx(PRICE)
    assert [path.name for path in (moa.folder / "out.jsonl.state").iterdir()] == ["batch.json"]
    # Nothing is left to do.
    asked = len(provider.asked)
    assert run(moa, "-y").code == 0
    assert not any(call.startswith("POST") for call in provider.asked[asked:])


def test_each_request_has_the_query_of_the_provider(moa: Moa, provider: BatchProvider) -> None:
    lab = {**moa.settings()["providers"]["lab"], "query": {"api-version": "1", "t": "a b"}}
    moa.configure(providers={"lab": lab})
    # A job that was perhaps created is looked for in the list.
    provider.failing["create"] = 1
    assert run(moa, "-y").code == 0
    assert {"POST /files", "POST /batches", "GET /batches", "GET /batches/batch_1"} <= set(
        provider.asked
    )
    assert all("api-version=1&t=a+b" in query for query in provider.queries)


@pytest.mark.parametrize("killed_at", [None, "upload", "create"])
def test_together_s_files_and_jobs(tmp_path: Path, killed_at: str | None) -> None:
    with BatchProvider(KEY, together=True) as provider:
        moa = Moa(tmp_path, provider.url)
        address = moa.settings()["providers"]["lab"]
        prices = {f"Lab/{name}": PRICE for name in ("a", "b", "agg")}
        moa.configure(providers={"together": address}, prices=prices)
        write_lines(moa.folder / "in.jsonl", [{"prompt": "p"}, {"prompt": "q"}])
        table = (
            'aggregator = {model = "Lab/agg"}\nproposers = [{model = "Lab/a"}, {model = "Lab/b"}]\n'
        )
        path = moa.folder / "together.toml"
        path.write_text(table)
        command = (*START, "-y", "-p", str(path))
        if killed_at:
            provider.block = killed_at
            with moa.start(*command) as process:
                provider.wait_until_blocked()
                process.send_signal(signal.SIGKILL)
                process.wait()
        ran = moa.run(*command)
        assert ran.code == 0, ran.err
        assert len(provider.jobs) == 3
        assert handed_in_twice(provider) == []
        found = answers(moa)
        assert [line["cost"] for line in found] == pytest.approx([3 * CALL] * 2)


@pytest.mark.parametrize("phase", ["upload", "create", "look", "download"])
@pytest.mark.parametrize("jobs_before", [0, 2, 4])
def test_killed_at_any_phase_it_hands_nothing_in_twice(
    moa: Moa, provider: BatchProvider, phase: str, jobs_before: int
) -> None:
    """jobs_before: how many jobs were begun by then: in the first layer, the second, the last."""
    provider.page = 2

    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        return says(body)

    provider.answer = answer
    begin = provider._begin

    def armed(body: dict[str, Any]) -> dict[str, Any]:
        job = begin(body)
        if len(provider.jobs) == max(jobs_before, 1) and jobs_before:
            provider.block = phase
        return job

    if jobs_before:
        provider._begin = armed  # type: ignore[method-assign]
    else:
        provider.block = phase
    with moa.start(*START, "-y") as process:
        provider.wait_until_blocked()
        process.send_signal(signal.SIGKILL)
        process.wait()
    provider._begin = begin  # type: ignore[method-assign]
    provider.block = None
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert handed_in_twice(provider) == []
    assert len(provider.requests()) == 15
    found = answers(moa)
    assert [line["id"] for line in found] == ["q1", "q2", "q3"]
    assert sum(line["cost"] for line in found) == pytest.approx(15 * CALL)
    assert "$0.000015" in ran.err


def test_interrupted_it_leaves_jobs_running_and_goes_on_with_them(
    moa: Moa, provider: BatchProvider
) -> None:
    provider.held = True
    with moa.start(*START, "-y") as process:
        while len(provider.jobs) < 2:
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    provider.held = False
    ran = run(moa, "-y")
    assert ran.code == 0
    assert "going on with 2 jobs of an earlier start" in ran.err
    assert len(provider.jobs) == 5
    assert handed_in_twice(provider) == []


def test_what_the_provider_fails_at_is_asked_again(moa: Moa, provider: BatchProvider) -> None:
    failures = Counter({"lab": 2})

    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        if body["model"] == "a" and failures["lab"]:
            failures["lab"] -= 1
            raise Refusal(500, "out of order")
        return says(body)

    provider.answer = answer
    provider.failing.update({"upload": 1, "create": 1, "look": 1, "download": 1})
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    found = answers(moa)
    assert all("lost" not in line and "error" not in line for line in found)
    # Two requests are in two jobs, since the first brought no answer.
    assert len(handed_in_twice(provider)) == 2
    assert sum(line["cost"] for line in found) == pytest.approx(15 * CALL)


def test_what_is_refused_for_good_is_lost_and_told(moa: Moa, provider: BatchProvider) -> None:
    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        if body["model"] == "a":
            raise Refusal(400, "this is not allowed")
        return says(body)

    provider.answer = answer
    ran = run(moa, "-y")
    assert ran.code == 0
    found = answers(moa)
    assert all(line["reply"] for line in found)
    assert all("not allowed" in " ".join(line["lost"]) for line in found)
    assert handed_in_twice(provider) == []
    ran = moa.run("batch", "in.jsonl", "strict.jsonl", "--provider-batch", "--strict", "-y")
    assert ran.code == 1
    assert all("not allowed" in line["error"]["message"] for line in answers(moa, "strict.jsonl"))


def test_a_job_that_expires_is_finished_by_another(moa: Moa, provider: BatchProvider) -> None:
    provider.ends_as = {"status": "expired"}

    def look() -> None:
        while len(provider.jobs) < 3:
            threading.Event().wait(0.01)
        provider.ends_as = {"status": "completed"}

    threading.Thread(target=look, daemon=True).start()
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert [line["id"] for line in answers(moa)] == ["q1", "q2", "q3"]
    assert "expired" in ran.err


def test_a_job_that_is_refused_fails_its_prompts_and_tells_why(
    moa: Moa, provider: BatchProvider
) -> None:
    problem = {"code": "invalid", "line": 2, "message": "the file is not to our taste"}
    provider.ends_as = {"status": "failed", "errors": {"data": [problem]}}
    ran = run(moa, "-y")
    assert ran.code == 1
    assert "line 2: the file is not to our taste" in ran.err
    provider.ends_as = {"status": "completed"}
    # The same command tries again, in new jobs.
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err


def test_a_cap_holds_for_jobs_that_run(moa: Moa, provider: BatchProvider) -> None:
    provider.held = False
    moa.profile("short", "a", aggregator="agg", max_tokens=20, rounds=1)
    command = ("batch", "in.jsonl", "capped.jsonl", "--provider-batch", "-y", "-p", "short")
    ran = moa.run(*command, "--max-cost", "0.000004")
    assert ran.code == 3, ran.err
    assert "--max-cost" in ran.err
    there = len(answers(moa, "capped.jsonl")) if (moa.folder / "capped.jsonl").exists() else 0
    assert there < 3
    assert sum(100 * 0.005e-6 + 10 * 0.05e-6 for _ in provider.requests()) <= 0.000004
    ran = moa.run(*command, "--max-cost", "1")
    assert ran.code == 0, ran.err
    assert len(answers(moa, "capped.jsonl")) == 3
    assert handed_in_twice(provider) == []


def test_it_needs_a_provider_with_batches_and_a_state(moa: Moa, provider: BatchProvider) -> None:
    for options in (("--no-save",), ()):
        target = "out.jsonl" if options else "-"
        ran = moa.run("batch", "in.jsonl", target, "--provider-batch", "-y", *options)
        assert ran.code == 2
        assert "--provider-batch needs OUT.state" in ran.err
    lab = moa.settings()["providers"]["lab"]
    del lab["batch_price"]
    moa.configure(profile="mix", providers={"lab": lab})
    ran = run(moa, "-y")
    assert ran.code == 2
    assert "lab has no batch interface that moa knows" in ran.err
    assert provider.jobs == {}


def test_a_batch_by_calls_is_not_gone_on_with_by_jobs(moa: Moa, provider: BatchProvider) -> None:
    assert run(moa, "-y", "-n", "1").code == 0
    ran = moa.run("batch", "in.jsonl", "out.jsonl", "--proposals", "-y")
    assert ran.code == 1
    assert "provider_batch" in ran.err


def test_prompts_of_columns_are_answered_several_times_by_jobs(
    moa: Moa, provider: BatchProvider
) -> None:
    (moa.folder / "in.csv").write_text("name,text\nx,one\ny\nz,three\n")
    options = ("--id-field", "name", "--prompt", "Sum up: {text}", "--answers", "2", "--skip-bad")
    ran = moa.run("batch", "in.csv", "out.jsonl", "--provider-batch", "-y", *options)
    assert ran.code == 0, ran.err
    assert "1 bad row left out" in ran.err
    found = answers(moa)
    assert [(line["id"], line["sample"]) for line in found] == [
        ("x", 1),
        ("x", 2),
        ("z", 1),
        ("z", 2),
    ]
    assert [line["cost"] for line in found] == pytest.approx([5 * CALL] * 4)
    assert len(provider.requests()) == 4 * 5
    assert handed_in_twice(provider) == []
    asked = {request["body"]["messages"][-1]["content"] for request in provider.requests()}
    assert {"Sum up: one", "Sum up: three"} <= asked


def test_openai_lines_of_a_shard_are_answered_by_jobs(moa: Moa, provider: BatchProvider) -> None:
    messages = [{"role": "user", "content": "what is it"}]
    rows = [{"custom_id": f"c{n}", "body": {"messages": messages}} for n in range(1, 4)]
    write_lines(moa.folder / "in.jsonl", rows)
    ran = run(moa, "-y", "--shard", "2/2")
    assert ran.code == 0, ran.err
    [line] = answers(moa)
    assert line["custom_id"] == "c2"
    assert line["response"]["body"]["choices"][0]["message"]["content"].startswith("agg says ")
    assert len(provider.requests()) == 5


def many(moa: Moa, count: int) -> None:
    rows = [{"id": f"q{n}", "prompt": f"thing {n}"} for n in range(1, count + 1)]
    write_lines(moa.folder / "in.jsonl", rows)


@pytest.mark.parametrize(
    ("status", "count", "message"), [(401, 3, "key"), (400, 6, "this is not allowed")]
)
def test_a_model_that_fails_alike_for_all_stops_the_batch(
    moa: Moa, provider: BatchProvider, status: int, count: int, message: str
) -> None:
    many(moa, 8)

    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        if body["model"] == "a":
            raise Refusal(status, "this is not allowed")
        return says(body)

    provider.answer = answer
    ran = run(moa, "-y")
    assert ran.code == 1
    assert f"stopped: lab:a failed for {count} items in a row: " in ran.err
    assert message in ran.err
    assert "fix this, then run the same command again to resume" in ran.err
    # Neither the second layer nor the aggregator was asked for what is stopped.
    assert {job["id"] for job in provider.jobs.values()} == {"batch_1", "batch_2"}
    provider.answer = says
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert [line["id"] for line in answers(moa)] == [f"q{n}" for n in range(1, 9)]
    assert all("lost" not in line for line in answers(moa))
    # What the other model had answered is not asked for again.
    asked = Counter(request["body"]["model"] for request in provider.requests())
    assert asked == {"a": 8 * 3, "b": 8 * 2, "agg": 8}


def test_a_fallback_is_asked_where_the_aggregator_fails_for_all(
    moa: Moa, provider: BatchProvider
) -> None:
    many(moa, 8)
    moa.profile("mix", "a", "b", aggregator={"model": "lab:agg", "fallbacks": ["lab:b"]})

    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        if body["model"] in dead:
            raise Refusal(404, "there is no such model")
        return says(body)

    provider.answer, dead = answer, ["agg"]
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert [line["model"] for line in answers(moa)] == ["b"] * 8
    # Where the last one is dead, too, the batch stops.
    dead.append("b")
    ran = moa.run("batch", "in.jsonl", "dead.jsonl", "--provider-batch", "-y")
    assert ran.code == 1
    assert "stopped: lab:b failed for 3 items in a row" in ran.err


def test_jobs_that_run_on_are_told_of(moa: Moa, provider: BatchProvider) -> None:
    provider.held = True
    with moa.start(*START, "-y") as process:
        while len(provider.jobs) < 2:
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert b"2 jobs of this batch may still run at the provider; the same command continues" in err
    # A smaller limit leaves out what a job answers already; no answer is lost to that.
    provider.held = False
    assert run(moa, "-y", "-n", "1").code == 0
    assert len(answers(moa)) == 1
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert len(answers(moa)) == 3
    assert handed_in_twice(provider) == []
    assert len(provider.requests()) == 15


def test_killed_between_failures_and_the_next_job_nothing_is_in_two_jobs_at_once(
    moa: Moa, provider: BatchProvider
) -> None:
    """The first job brings half of its answers; the kill comes while the rest is handed in."""
    many(moa, 4)
    seen: Counter[str] = Counter()

    def answer(body: Mapping[str, Any]) -> dict[str, Any]:
        text = json.dumps(body["messages"])
        seen[text] += 1
        if body["model"] == "a" and seen[text] == 1 and len(provider.jobs) <= 2:
            provider.block = "create" if len(provider.jobs) == 2 else None
            raise Refusal(500, "out of order")
        return says(body)

    provider.answer = answer
    with moa.start(*START, "-y") as process:
        provider.wait_until_blocked()
        process.send_signal(signal.SIGKILL)
        process.wait()
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    times = Counter(request["custom_id"].rpartition("/")[2] for request in provider.requests())
    # Those that failed are in two jobs, one after the other; all others in one.
    assert max(times.values()) == 2
    assert [line["id"] for line in answers(moa)] == [f"q{n}" for n in range(1, 5)]
    assert all("lost" not in line for line in answers(moa))


def test_a_cap_that_is_raised_again_and_again(moa: Moa, provider: BatchProvider) -> None:
    many(moa, 9)
    moa.profile("short", "a", aggregator="agg", max_tokens=20, rounds=1)
    command = ("batch", "in.jsonl", "capped.jsonl", "--provider-batch", "-y", "-p", "short")
    for cap in ("0.000006", "0.000012"):
        ran = moa.run(*command, "--max-cost", cap)
        assert ran.code == 3, ran.err
        spent = sum(100 * 0.005e-6 + 10 * 0.05e-6 for _ in provider.requests())
        assert spent <= float(cap)
    assert moa.run(*command, "--max-cost", "1").code == 0
    assert [line["id"] for line in answers(moa, "capped.jsonl")] == [f"q{n}" for n in range(1, 10)]
    assert handed_in_twice(provider) == []
    assert len(provider.requests()) == 18


def test_an_expired_job_whose_answers_come_late_is_finished_in_the_order_of_the_input(
    moa: Moa, provider: BatchProvider
) -> None:
    many(moa, 7)
    provider.ends_as = {"status": "cancelled"}

    def look() -> None:
        while len(provider.jobs) < 4:
            threading.Event().wait(0.01)
        provider.ends_as = {"status": "completed"}

    threading.Thread(target=look, daemon=True).start()
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert "cancelled" in ran.err
    assert [line["id"] for line in answers(moa)] == [f"q{n}" for n in range(1, 8)]


@pytest.mark.parametrize("gone", ["/batches/batch_1", "/files/file-3/content"])
def test_a_job_that_is_gone_is_named_and_can_be_given_up(
    moa: Moa, provider: BatchProvider, gone: str
) -> None:
    provider.gone = gone
    ran = run(moa, "-y")
    assert ran.code == 1
    assert "job batch_1 to lab:a: lab: it is gone" in ran.err
    assert "use the account that began it; if it is deleted there, delete " in ran.err
    [calls] = re.findall(r"delete (/\S+\.calls\.jsonl)", ran.err)
    # It may be a wrong key only, so that nothing is handed in anew before that.
    assert run(moa, "-y").code == 1
    assert len(provider.jobs) == 2
    Path(calls).unlink()
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert [line["id"] for line in answers(moa)] == ["q1", "q2", "q3"]
    asked = Counter(request["body"]["model"] for request in provider.requests())
    assert asked == {"a": 3 + 6, "b": 6, "agg": 3}


def test_a_status_that_is_not_known_is_told_once(moa: Moa, provider: BatchProvider) -> None:
    provider.ends_as = {"status": "on\x1b[31m hold"}
    looks = iter(range(100))

    def job(job: dict[str, Any]) -> dict[str, Any]:
        if next(looks) == 6:
            provider.ends_as = {"status": "completed"}
            for held in provider.jobs.values():
                held["status"] = "in_progress"
        return begun(job)

    begun = provider._job
    provider._job = job  # type: ignore[method-assign]
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert ran.err.count("has a status that moa does not know, `on hold`") == 2
    assert "\x1b" not in ran.err


def test_jobs_that_were_never_handed_in_are_not_said_to_run(
    moa: Moa, provider: BatchProvider
) -> None:
    provider.key = "another"
    ran = run(moa, "-y")
    assert ran.code == 76
    assert "lab refused the API key" in ran.err
    assert "may still run" not in ran.err
    provider.key = KEY
    assert run(moa, "-y").code == 0
    assert handed_in_twice(provider) == []


def test_shards_run_through_jobs_at_the_same_time(moa: Moa, provider: BatchProvider) -> None:
    many(moa, 7)
    command = ("batch", "in.jsonl", "--provider-batch", "-y")
    with ExitStack() as started:
        shards = [(f"part-{part}.jsonl", "--shard", f"{part}/3") for part in (1, 2, 3)]
        for process in [started.enter_context(moa.start(*command, *shard)) for shard in shards]:
            process.communicate()
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-2.jsonl", "part-3.jsonl", "all.jsonl")
    assert ran.code == 0, ran.err
    found = answers(moa, "all.jsonl")
    assert [line["id"] for line in found] == [f"q{n}" for n in range(1, 8)]
    assert sum(line["cost"] for line in found) == pytest.approx(7 * 5 * CALL)
    assert handed_in_twice(provider) == []
    card = json.loads((moa.folder / "all.jsonl.card.json").read_bytes())
    assert (card["provider_batch"], card["shard"]) == (True, None)


@pytest.mark.parametrize("room", [5, 2])
def test_jobs_wait_for_room_at_the_provider(moa: Moa, provider: BatchProvider, room: int) -> None:
    """room: how many requests the provider takes in all jobs that run; those of one are five."""
    many(moa, 5)
    looks: Counter[str] = Counter()
    end = provider._job

    def size(job: Mapping[str, Any]) -> int:
        return len(provider.files[job["input_file_id"]].splitlines())

    def job(job: dict[str, Any]) -> dict[str, Any]:
        if job["status"] != "in_progress":
            return job
        looks[job["id"]] += 1
        others = [
            other
            for other in provider.jobs.values()
            if other is not job and other["status"] == "in_progress" and looks[other["id"]]
        ]
        if looks[job["id"]] == 1 and size(job) + sum(map(size, others)) > room:
            full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
            job.update(status="failed", errors={"data": [full]})
        return end(job) if looks[job["id"]] == 4 else job

    provider._job = job  # type: ignore[method-assign]
    ran = run(moa, "-y")
    assert ran.code == 0, ran.err
    assert "Enqueued token limit reached): 0 answered, 5 not; they wait for room" in ran.err
    found = answers(moa)
    assert [line["id"] for line in found] == [f"q{n}" for n in range(1, 6)]
    assert not any("lost" in line for line in found)
    done = [job for job in provider.jobs.values() if job["status"] == "completed"]
    assert sum(map(size, done)) == 5 * 5
    assert len(done) == (5 if room == 5 else 15)


@pytest.mark.parametrize("refuses", ["/files", "/batches"])
def test_a_refused_file_is_told_with_its_model_and_can_be_handed_in_later(
    moa: Moa, provider: BatchProvider, refuses: str
) -> None:
    provider.gone = refuses
    ran = run(moa, "-y")
    assert ran.code == 1
    assert "job of 3 requests to lab:a: lab refused the request (400): not this file" in ran.err
    assert run(moa, "-y").code == 1
    assert provider.jobs == {}
    provider.gone = ""
    assert run(moa, "-y").code == 0
    assert handed_in_twice(provider) == []
