"""`moa ask`: what becomes of a turn. What can be answered is answered, with exit code 0, and
what was lost is named; what cannot be answered leaves standard output empty, says why in one
line, and has the exit code of its cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import KEY, Moa
from tests.support.upstream import Reply, Upstream

HEADER = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"
REFUSED = Reply(status=400, error={"error": {"message": "the weather is bad"}})


def references(upstream: Upstream) -> str:
    """What follows the prompt of the paper in the aggregator's system message."""
    [request] = upstream.chats("agg")
    return str(request.messages[0]["content"]).partition("Responses from models:")[2]


def test_the_reply_is_alone_on_standard_output_and_a_line_on_stderr_says_who_answered(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="It is water."))
    ran = moa.run("ask", "What", "is", "rain?")
    assert (ran.code, ran.out, ran.err) == (0, b"It is water.\n", HEADER)
    assert {r.messages[-1]["content"] for r in upstream.chats()} == {"What is rain?"}


def test_one_of_three_proposers_refused_leaves_two_references_and_is_named(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("a", Reply(text="from a"))
    upstream.always("b", REFUSED)
    upstream.always("c", Reply(text="from c"))
    ran = moa.run("ask", "hi")
    assert references(upstream) == "\n1. from a\n2. from c"
    assert (ran.code, ran.out) == (0, b"ok\n")
    lost = "moa: degraded, lost lab:b: lab refused the request (400): the weather is bad\n"
    assert ran.err == HEADER + lost


def test_where_all_proposers_fail_the_aggregator_is_not_called_and_every_cause_is_named(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("a", REFUSED)
    upstream.always("b", Reply(status=500, error={"error": {"message": "on fire"}}))
    upstream.always("c", Reply(chunks=[]))
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.out) == (1, b"")
    assert upstream.chats("agg") == []
    header, line, rest = ran.err.split("\n")
    assert (header + "\n", rest) == (HEADER, "")
    assert line.startswith("moa: no proposer answered: ")
    for cause in ("lab:a", "the weather is bad", "lab:b", "on fire", "lab:c", "empty answer"):
        assert cause in line


def test_an_aggregator_that_fails_before_its_first_token_is_replaced_and_that_is_shown(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.always("agg", REFUSED)
    upstream.always("spare", Reply(text="from the spare"))
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.out) == (0, b"from the spare\n")
    assert "the weather is bad; lab:spare replies in its place\n" in ran.err


def test_an_aggregator_that_breaks_off_leaves_what_came_and_exit_code_1(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.always("agg", Reply(chunks=["Half ", "of ", "it"], drop_after=2))
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.out) == (1, b"Half of \n")
    assert upstream.chats("spare") == []
    assert "moa: lab:agg: lab: the connection to 127.0.0.1" in ran.err


def test_chunks_without_content_or_choices_do_no_harm_and_the_usage_is_counted(
    moa: Moa, upstream: Upstream
) -> None:
    def chunk(*choices: object, **more: object) -> dict[str, object]:
        return {"object": "chat.completion.chunk", "choices": list(choices), **more}

    events = [
        chunk({"index": 0, "delta": {"role": "assistant", "content": None}}),
        chunk(),
        {"choices": None},
        chunk({"index": 0, "delta": None}),
        chunk({"index": 0, "delta": {"content": "Water."}, "finish_reason": None}),
        chunk({"index": 0, "delta": {}, "finish_reason": "stop"}),
        chunk(usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
        "[DONE]",
    ]
    upstream.always("*", Reply(events=events))
    told = json.loads(moa.run("ask", "hi", "--json").out)
    assert told["reply"] == "Water."
    assert told["usage"] == {
        "calls": 4,
        "prompt_tokens": 20,
        "completion_tokens": 28,
        "total_tokens": 48,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "estimated_calls": 0,
        "estimated_prompt_tokens": 0,
        "estimated_completion_tokens": 0,
        "cost": None,
        "known_cost": 0.0,
        "unpriced_calls": 4,
    }


@pytest.mark.parametrize("options", [[], ["-v"], ["--output", "jsonl"], ["--json"]])
def test_a_refused_key_is_one_line_and_code_76_and_the_key_is_nowhere(
    tmp_path: Path, options: list[str]
) -> None:
    with Upstream(api_key="another-key") as upstream:
        ran = Moa(tmp_path, upstream.url).run("ask", "hi", *options)
    assert ran.code == 76
    assert KEY.encode() not in ran.out
    assert KEY not in ran.err
    if not options:
        assert ran.out == b""
        [_, line] = ran.err.splitlines()
        assert line.startswith("moa: lab refused the API key: Incorrect API key provided: ")


def test_a_missing_key_is_one_line_and_code_76(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", env={"LAB_KEY": None})
    assert (ran.code, ran.out) == (76, b"")
    assert ran.err.startswith(HEADER + "moa: there is no API key for lab (set LAB_KEY in")
    assert upstream.requests == []


def test_an_unknown_model_is_code_77_with_the_nearest_names(tmp_path: Path) -> None:
    with Upstream(models=["llama-70b", "qwen-72b", "agg"]) as upstream:
        ran = Moa(tmp_path, upstream.url).run("ask", "-m", "lab:llama-7b", "hi")
        assert upstream.chats("agg") == []
    assert (ran.code, ran.out) == (77, b"")
    [_, line] = ran.err.splitlines()
    assert "llama-7b" in line
    assert "did you mean `lab:llama-70b`" in line


def test_too_many_requests_everywhere_is_code_75(moa: Moa, upstream: Upstream) -> None:
    limited = Reply(status=429, headers={"Retry-After": "86400"})
    upstream.always("*", limited)
    ran = moa.run("ask", "hi", env={"MOA_RETRIES": "0"})
    assert (ran.code, ran.out) == (75, b"")
    assert len(upstream.chats()) == 3
    [_, line] = ran.err.splitlines()
    assert line.startswith("moa: lab: too many requests: ")
    assert "wait a moment" in line


def test_a_wait_longer_than_the_time_limit_is_not_begun(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=429, headers={"Retry-After": "86400"}))
    assert moa.run("ask", "hi", env={"MOA_RETRIES": "3"}).code == 75
    assert len(upstream.chats()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "labb", "hi"], "there is no profile `labb` (did you mean `lab`?)"),
        (["-p", "../lab", "hi"], "../lab: no such profile file"),
        (["-p", "no/such.toml", "hi"], "no/such.toml: no such profile file"),
        (["--rounds", "-1", "hi"], "moa: --rounds: must be between 0 and"),
        (["-t", "9", "hi"], "moa: --temperature: must be between 0 and"),
        (["--samples", "0", "hi"], "moa: --samples: must be"),
        (["--reference-placement", "nowhere", "hi"], "moa: --reference-placement: must be one of"),
        (["--concurrency", "0", "hi"], "Invalid value for '--concurrency'"),
        (["--num_proc", "-1", "hi"], "Invalid value for '--num_proc'"),
        (["-a", "x", "--model", "y", "hi"], "one setting was given two values: x and y"),
        (["--json", "--output", "jsonl", "hi"], "--json and --output"),
        (["--dry-run", "--json", "hi"], "--dry-run prints text, and --estimate text or JSON"),
        (["--estimate", "--output", "jsonl", "hi"], "--dry-run prints text, and --estimate text"),
        (["--nope", "hi"], "No such option: --nope"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    moa: Moa, upstream: Upstream, arguments: list[str], said: str
) -> None:
    ran = moa.run("ask", *arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert said in ran.err
    assert ran.err.startswith("moa: ")
    assert ran.err.count("\n") == 1
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (
            ["-m", "lab:a", "hi"],
            "the options of a command follow its name, as in `moa ask -m MODEL`",
        ),
        (["why", "not"], "a question without a command stands in quotes"),
    ],
)
def test_a_question_without_a_command_that_is_not_understood_says_how_to_ask_it(
    moa: Moa, upstream: Upstream, arguments: list[str], hint: str
) -> None:
    ran = moa.run(*arguments)
    assert ran.code == 2
    assert ran.err.endswith(f"(see `moa --help`; {hint})\n")
    assert upstream.requests == []


def test_a_wrong_profile_file_is_named_with_the_key_and_what_was_meant(moa: Moa) -> None:
    path = moa.profile("broken", "a", temprature=1)
    ran = moa.run("ask", "-p", "broken", "hi")
    said = f"moa: {path}: unknown key `temprature` (did you mean `temperature`?)\n"
    assert (ran.code, ran.out, ran.err) == (2, b"", said)


def test_without_a_profile_the_first_provider_with_a_key_answers(
    moa: Moa, upstream: Upstream
) -> None:
    (moa.config / "config.toml").unlink()
    env = {"TOGETHER_API_KEY": "t-key", "TOGETHER_BASE_URL": upstream.url}
    ran = moa.run("ask", "hi", env=env)
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert ran.err.startswith("moa: profile together: DeepSeek-V4-Pro, ")
    asked = [request.model for request in upstream.chats()]
    assert len(asked) == 5
    assert asked[-1] == "deepseek-ai/DeepSeek-V4-Pro"
    assert {r.headers["authorization"] for r in upstream.chats()} == {"Bearer t-key"}


def test_the_key_is_in_no_list_of_processes(moa: Moa, upstream: Upstream) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system does not tell command lines in /proc")
    upstream.always("agg", Reply(stall_after=0))
    with moa.start("ask", "hi", fresh=True):
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
        lines = [content(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(b"moa_cli" in line for line in lines)
    assert not any(KEY.encode() in line for line in lines)


def content(path: Path) -> bytes:
    """What is in the file, nothing if it has gone by now."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


FILTERED = Reply(text="First you take the", finish_reason="content_filter")
LENGTHY = Reply(text="First you take the", finish_reason="length")
LIMIT = "cut at the token limit (max_tokens)"


def test_a_cut_answer_is_shown_and_said_to_be_cut(moa: Moa, upstream: Upstream) -> None:
    for model in ("a", "b"):
        upstream.always(model, LENGTHY)
    upstream.always("agg", FILTERED)
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.out) == (0, b"First you take the\n")
    assert ran.err == (
        f"{HEADER}moa: 2 proposals were {LIMIT}: lab:a, lab:b\n"
        "moa: the reply was cut by the provider's content filter\n"
    )
    steps = moa.run("ask", "hi", "-v").err
    assert steps.count(f" tokens, {LIMIT}\n") == 2
    assert moa.run("ask", "hi", "-q").err == (
        "moa: the reply was cut by the provider's content filter\n"
    )
    shown = moa.run("history", "show", "--proposals").text
    assert shown.count(f"({LIMIT})") == 2
    assert "(the reply was cut by the provider's content filter)" in shown


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("content_filter: RECITATION", "cut by the provider's content filter"),
        ("content-filter", "cut by the provider's content filter"),
        ("FINISH_REASON_MAX_TOKENS", LIMIT),
        ("repetition_truncation", "cut because it repeated itself"),
    ],
)
def test_an_answer_is_said_to_be_cut_in_any_word_of_a_provider(
    moa: Moa, upstream: Upstream, reason: str, cut: str
) -> None:
    upstream.always("agg", Reply(text="First you take the", finish_reason=reason))
    assert moa.run("ask", "hi", "-q").err == f"moa: the reply was {cut}\n"


def test_json_tells_what_was_cut(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", LENGTHY)
    upstream.always("agg", FILTERED)
    told = json.loads(moa.run("ask", "hi", "--json").out)
    assert told["finish_reason"] == "content_filter"
    assert [proposal["finish_reason"] for proposal in told["proposals"][0]] == [
        *("stop", "length", "stop")
    ]
    assert told["cut"] == [
        f"the proposal of lab:b was {LIMIT}",
        "the reply was cut by the provider's content filter",
    ]


REFUSAL = Reply(
    events=[
        {"choices": [{"index": 0, "delta": {"refusal": "I cannot help with that."}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        "[DONE]",
    ]
)


def test_the_words_of_a_refusal_are_shown(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", REFUSAL)
    ran = moa.run("ask", "hi")
    assert ran.code == 0
    said = "lab:b: it refused to answer: I cannot help with that."
    assert ran.err == f"{HEADER}moa: degraded, lost {said}\n"
    upstream.always("b", Reply())
    upstream.always("agg", REFUSAL)
    ran = moa.run("ask", "hi", "-q")
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err == "moa: lab:agg: it refused to answer: I cannot help with that.\n"


def test_reasoning_that_only_its_end_tells_is_in_no_prompt_and_no_history(
    moa: Moa, upstream: Upstream
) -> None:
    late = Reply(chunks=["It is the Moon, I thi", "nk.\n</think>\n", "\nThe Moon."])
    for model in ("a", "agg"):
        upstream.always(model, late)
    told = json.loads(moa.run("ask", "hi", "--json").out)
    assert (told["reply"], told["reasoning"]) == ("The Moon.", "It is the Moon, I think.")
    assert told["proposals"][0][0]["text"] == "The Moon."
    assert references(upstream).startswith("\n1. The Moon.\n2. ok")
    moa.run("ask", "-c", "more")
    assert [m["content"] for m in upstream.chats("b")[-1].messages] == ["hi", "The Moon.", "more"]
    assert moa.run("ask", "hi", "--no-stream").out == b"The Moon.\n"
