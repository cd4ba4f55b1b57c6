"""`moa compare` at a real terminal: what is shown before the choice and after it, the keys, and
what is kept."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa, Terminal
from tests.support.upstream import Reply, Request, Upstream

ASK = "Which is best?"
BUSY = Reply(status=500, error={"error": {"message": "out of order"}})
# What each arm says, which does not tell who it is.
MIXTURE, PROPOSER, AGGREGATOR = "Said by **melons**.", "Said by apples.", "Said by kiwis."


def _reply(request: Request) -> str:
    merged = any("set of responses" in message["content"] for message in request.messages)
    return MIXTURE if merged else AGGREGATOR


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command, with the profile `one`: proposer a, aggregator agg; and `other`, whose
    models are b and agg."""
    upstream.always("a", Reply(text=PROPOSER))
    upstream.always("b", Reply(text="Said by berries."))
    upstream.always("agg", Reply(text=_reply))
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.profile("other", aggregator="b", rounds=0)
    price = {"prompt": 10, "completion": 10}
    moa.configure(
        profile="one",
        providers=moa.settings()["providers"],
        prices={f"lab:{name}": price for name in ("a", "b", "agg")},
    )
    return moa


def text_of(terminal: Terminal) -> str:
    """All that was shown."""
    return "\n".join(terminal.lines())


def asked(terminal: Terminal, times: int = 1) -> None:
    """Until the question for a key stands there for that time."""
    terminal.wait_for(lambda: text_of(terminal).count(ASK) == times)


def letter_of(terminal: Terminal, words: str) -> str:
    """The letter of the last answer that holds these words."""
    return str(re.findall(rf"── (\w) ──\n+[^─]*{words}", text_of(terminal))[-1]).lower()


def results(moa: Moa, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What is kept, by arm and profile."""
    ran = moa.run("compare", "--results", "--json", *options)
    assert ran.code == 0, ran.err
    return {(line["arm"], line["profile"]): line for line in json.loads(ran.out)}


def test_no_name_is_shown_before_the_choice(moa: Moa) -> None:
    with moa.terminal("compare", "what grows?") as terminal:
        asked(terminal)
        before = terminal.raw.decode()
        assert "› what grows?" in before
        for words in ("melons", "apples", "kiwis"):
            assert words in before
        # Drawn, not as it was sent.
        assert "**" not in before
        for name in ("lab", "mixture", "single", "agg", "one"):
            assert not re.search(rf"\b{name}\b", before), name
        terminal.send(letter_of(terminal, "melons"))
        assert terminal.wait() == 0
        after = text_of(terminal)
        modes = terminal.modes_before, terminal.modes_after
    assert modes[0] == modes[1]
    [chosen] = [line for line in after.split("\n") if "chosen" in line]
    assert re.match(r"[ABC]  mixture +\$\d\S* +\d+\.\d +chosen +one", chosen)
    assert re.search(r"mixture +1 +1 +100% +\$\d\S* +one", after)
    assert re.search(r"single:lab:a +1 +0 +0% +– ", after)


def test_strategies_are_compared_over_the_same_proposers(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("compare", "--arms", "synthesize,vote", "Which fruit?") as terminal:
        asked(terminal)
        shown = text_of(terminal)
        assert "Said by melons." in shown
        assert PROPOSER in shown
        terminal.send(letter_of(terminal, "apples"))
        assert terminal.wait() == 0
    assert len(upstream.chats("agg")) == 1
    assert "vote" in moa.run("compare", "--results").text


def test_a_cut_answer_says_so_and_a_cut_proposal_only_after_the_choice(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("a", Reply(text=PROPOSER, finish_reason="length"))
    with moa.terminal("compare", "what grows?", columns=120, rows=60) as terminal:
        asked(terminal)
        before = text_of(terminal)
        # The one of the three arms whose reply is the proposer's.
        assert before.count("(the reply was cut at the token limit (max_tokens))") == 1
        assert re.search(r"Said by apples\.\n+\(the reply was cut", before)
        assert "the proposal of" not in before
        terminal.send("t")
        assert terminal.wait() == 0
        after = text_of(terminal)
    assert "mixture: the proposal of lab:a was cut at the token limit (max_tokens)" in after


def test_an_arm_that_refused_tells_the_words_of_its_model(moa: Moa, upstream: Upstream) -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I will not say."}
    choice = {"index": 0, "delta": refusal, "finish_reason": "stop"}
    upstream.always("b", Reply(events=[{"choices": [choice]}, "[DONE]"]))
    with moa.terminal(
        "compare", "what?", "--profiles", "one,other", columns=120, rows=60
    ) as terminal:
        assert terminal.wait() == 1
        shown = text_of(terminal)
    assert "failed: it refused to answer: I will not say." in shown


def test_keys_choose_tie_skip_and_quit(moa: Moa) -> None:
    prompts = ["one", "two", "three", "four", "five"]
    with moa.terminal("compare", *prompts, "--profiles", "one,other", rows=60) as terminal:
        asked(terminal)
        # Not a choice: neither a letter that is not there, nor an arrow.
        terminal.send("x")
        terminal.send("\x1b[A")
        terminal.send(letter_of(terminal, "berries"))
        asked(terminal, 2)
        terminal.send("t")
        asked(terminal, 3)
        terminal.send("s")
        asked(terminal, 4)
        terminal.send("q")
        assert terminal.wait() == 0
    found = results(moa)
    given, other = found["mixture", "one"], found["mixture", "other"]
    assert (other["compared"], other["wins"], other["ties"]) == (2, 1, 1)
    assert (given["compared"], given["wins"], given["ties"]) == (2, 0, 1)
    assert (other["win_rate"], given["win_rate"]) == (0.75, 0.25)
    assert other["standard_error"] == pytest.approx(0.25)
    assert other["cost_per_win"] == pytest.approx(other["cost"])
    assert given["cost_per_win"] is None
    assert list(found) == [("mixture", "other"), ("mixture", "one")]


def test_the_order_is_shuffled_and_repeats_with_a_seed(moa: Moa) -> None:
    def order(seed: int) -> str:
        with moa.terminal("compare", "p", "--seed", str(seed)) as terminal:
            asked(terminal)
            found = "".join(re.findall(r"Said by (\w)", text_of(terminal)))
            terminal.send("q")
            assert terminal.wait() == 0
        return found

    orders = [order(seed) for seed in (1, 1, 2, 3, 4)]
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1
    assert {"".join(sorted(order)) for order in orders} == {"akm"}


def test_prompts_are_asked_one_after_another(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("compare", "--profiles", "one,other") as terminal:
        terminal.wait_for("›")
        terminal.send("\r")
        terminal.send("was wächst?\r")
        asked(terminal)
        terminal.send("a")
        terminal.wait_for(lambda: text_of(terminal).rstrip().endswith("›"))
        terminal.send("\x04")
        assert terminal.wait() == 0
    assert upstream.chats("b")[0].messages == [{"role": "user", "content": "was wächst?"}]
    assert sum(value["wins"] for value in results(moa).values()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "first\nsecond\n"),
        ("p.jsonl", '{"prompt": "first"}\n{"messages": [{"role": "user", "content": "second"}]}\n'),
    ],
)
def test_prompts_from_a_file(moa: Moa, upstream: Upstream, name: str, text: str) -> None:
    (moa.folder / name).write_text(text)
    with moa.terminal("compare", "-f", name, "--profiles", "one,other") as terminal:
        for time in (1, 2):
            asked(terminal, time)
            terminal.send("t")
        assert terminal.wait() == 0
    said = [request.messages[-1]["content"] for request in upstream.chats("b")]
    assert said == ["first", "second"]


def test_an_arm_that_failed_is_not_offered(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", BUSY)
    with moa.terminal("compare", "p", "p2", "--profiles", "one,other,lab") as terminal:
        # Neither `one` nor `lab` has its mixture.
        terminal.wait_for("fewer than two answers: this prompt is not counted")
        assert "mixture (one) failed: " in text_of(terminal)
        assert terminal.wait() == 1
    assert ASK not in text_of(terminal)
    assert results(moa) == {}


def test_a_failed_arm_is_named_after_the_choice(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", BUSY)
    # single:lab:a and the mixture fail; two are left.
    with moa.terminal("compare", "p", "--arms", "single", "--profiles", "one,other") as terminal:
        assert terminal.wait() == 1
    moa.profile("third", aggregator="agg", rounds=0)
    with moa.terminal("compare", "p", "--profiles", "one,other,third") as terminal:
        asked(terminal)
        before = text_of(terminal)
        assert "1 arm failed; their names follow after your choice" in before
        assert "lab:a" not in before
        assert "[a/b, t: tie" in before
        terminal.send("a")
        assert terminal.wait() == 0
        assert "mixture (one) failed: " in text_of(terminal)
    assert {name for _, name in results(moa)} == {"other", "third"}


def test_ctrl_c_cancels_calls_and_keeps_what_was_chosen(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("compare", "p", "p2", "--profiles", "one,other") as terminal:
        asked(terminal)
        upstream.always("b", Reply(stall_after=0))
        terminal.send("a")
        upstream.wait_for(lambda: len(upstream.chats("b")) == 2 and upstream.in_flight > 0)
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert "moa: interrupted; 1 choice made and kept" in text_of(terminal)
        assert "Traceback" not in text_of(terminal)
        assert terminal.modes_before == terminal.modes_after
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert sum(value["wins"] for value in results(moa).values()) == 1


def test_ctrl_c_at_the_question(moa: Moa) -> None:
    with moa.terminal("compare", "p", "--profiles", "one,other") as terminal:
        asked(terminal)
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.modes_before == terminal.modes_after
    assert results(moa) == {}


def test_terminated_at_the_question_it_leaves_the_terminal_as_it_was(moa: Moa) -> None:
    with moa.terminal("compare", "p", "--profiles", "one,other") as terminal:
        asked(terminal)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 143
        assert terminal.modes_before == terminal.modes_after


def test_what_models_say_does_not_act_on_the_terminal(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", Reply(text="\x1b]0;gone\x07\x1b[2J\u202eevil"))
    with moa.terminal("compare", "p", "--profiles", "one,other") as terminal:
        asked(terminal)
        assert b"\x1b]0;" not in terminal.raw
        assert b"\x1b[2J" not in terminal.raw
        assert "\u202e" not in terminal.raw.decode()


def test_without_a_terminal_it_says_one_line(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("compare", "p")
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err == (
        "moa: choosing an answer needs a terminal (--results prints earlier choices)\n"
    )
    assert not upstream.chats()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--arms", "mixture"], "there must be at least two different arms"),
        (["--profiles", "one"], "there must be at least two different arms"),
        (["--profiles", "one,one"], "there must be at least two different arms"),
        (["--profiles", "one,other", "-t", "0.5"], "options that change a mixture"),
        (["--arms", "mixtur"], "--arms: there is no arm `mixtur`"),
        (["--json"], "--json and --since belong to --results"),
        (["--results"], "--results cannot be used with prompts"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_makes_no_sense_is_refused(moa: Moa, options: list[str], told: str) -> None:
    with moa.terminal("compare", "p", *options, columns=200) as terminal:
        assert terminal.wait() == 2
        assert told in text_of(terminal)


def chosen(moa: Moa, *options: str, key: str = "a") -> Terminal:
    """One choice between the profiles `one` and `other`."""
    with moa.terminal("compare", "p", "--profiles", "one,other", *options) as terminal:
        asked(terminal)
        terminal.send(key)
        assert terminal.wait() == 0
    return terminal


@pytest.mark.parametrize("how", ["--no-save", "MOA_SAVE", "save = false"])
def test_what_is_not_to_be_saved_is_not(moa: Moa, how: str) -> None:
    if how == "MOA_SAVE":
        moa.environment["MOA_SAVE"] = "0"
    elif how == "save = false":
        moa.configure(**{**moa.settings(), "save": False})
    terminal = chosen(moa, *([how] if how == "--no-save" else []))
    assert "what you choose is not kept" in text_of(terminal)
    # The running table is shown all the same.
    assert "win rate" in text_of(terminal)
    moa.environment.pop("MOA_SAVE", None)
    assert results(moa) == {}


def test_results_as_a_table_and_since(moa: Moa) -> None:
    assert moa.run("compare", "--results").err == "moa: there are no choices yet\n"
    chosen(moa, key="t")
    ran = moa.run("compare", "--results", "--since", "1h")
    head, *rows = ran.text.splitlines()
    heads = ("arm", "compared", "wins", "ties", "win rate", "cost/win", "s/answer", "profile")
    assert tuple(re.split("  +", head)) == heads
    assert sorted(row.split()[-1] for row in rows) == ["one", "other"]
    assert all(row.split()[:5] == ["mixture", "1", "0", "1", "50%"] for row in rows)
    [database] = (moa.state.parent / "data").glob("conversations.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE comparisons SET chosen = chosen - 7200")
    connection.close()
    assert results(moa, "--since", "1h") == {}
    assert len(results(moa, "--since", "1d")) == 2
    ran = moa.run("compare", "--results", "--since", "soon")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_pairs_tell_who_won_against_whom(moa: Moa) -> None:
    chosen(moa)
    text = moa.run("compare", "--results", "--pairs").text
    assert "strength: how likely it beats an average arm (Bradley-Terry)" in text
    assert re.search(r"^mixture +21–100% +50% +\d+% ", text, re.MULTILINE)
    assert re.search(r"^mixture +mixture +1 +0 +0 +1\.000 ", text, re.MULTILINE)
    ran = moa.run("compare", "--pairs", "why?")
    assert (ran.code, "--pairs, --json and --since belong to --results" in ran.err) == (2, True)
    found = results(moa)
    assert {len(row["against"]) for row in found.values()} == {1}


def test_changed_settings_are_told_apart(moa: Moa) -> None:
    chosen(moa)
    moa.profile("other", aggregator="b", rounds=0, temperature=0.2)
    chosen(moa)
    rows = moa.run("compare", "--results").text.splitlines()[1:]
    assert len(rows) == 3
    assert sum(bool(re.search(r" other #[0-9a-f]{7}$", row)) for row in rows) == 2


def test_choices_hold_no_words_and_outlive_conversations(moa: Moa) -> None:
    chosen(moa)
    moa.run("ask", "something")
    moa.run("history", "delete", "--older-than", "0h", "-y")
    assert len(results(moa)) == 2
    data = (moa.state.parent / "data" / "conversations.db").read_bytes()
    assert b"berries" not in data


def test_what_it_cost_is_in_the_books(moa: Moa) -> None:
    chosen(moa)
    spent = json.loads(moa.run("history", "stats", "--json").out)
    assert {model["model"]: model["calls"] for model in spent["models"]} == {
        "lab:a": 1,
        "lab:agg": 1,
        "lab:b": 1,
    }


def test_a_cap_ends_it(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", Reply(text="Said by berries.", usage=(2000, 2000)))
    options = ["--profiles", "one,other", "--max-cost", "0.065"]
    with moa.terminal("compare", "p", "p2", "p3", *options) as terminal:
        asked(terminal)
        terminal.send("t")
        assert terminal.wait() == 3
        assert "--max-cost $0.065 would be exceeded" in text_of(terminal)
    assert len(results(moa)) == 2


def test_two_at_once_lose_no_choice(moa: Moa) -> None:
    arguments = ["compare", "p", "p2", "--profiles", "one,other"]
    with moa.terminal(*arguments) as first, moa.terminal(*arguments) as second:
        for time in (1, 2):
            for terminal in (first, second):
                asked(terminal, time)
            for terminal in (first, second):
                terminal.send("t")
        assert (first.wait(), second.wait()) == (0, 0)
    assert {value["compared"] for value in results(moa).values()} == {4}


def say_the_same(upstream: Upstream, *models: str, text: str = "Four,\n  it is.") -> None:
    """Have these models give one answer, each with white space of its own."""
    for number, model in enumerate(models):
        upstream.always(model, Reply(text=text.replace(" ", " " * (number + 1)) + "\n" * number))


def test_equal_answers_are_shown_once_and_chosen_together(moa: Moa, upstream: Upstream) -> None:
    say_the_same(upstream, "a", "b")
    moa.profile("third", aggregator="agg", rounds=0)
    moa.profile("solo", aggregator="a", rounds=0)
    with moa.terminal("compare", "2+2?", "--profiles", "solo,other,third", rows=60) as terminal:
        asked(terminal)
        before = text_of(terminal)
        assert before.count("Four,") == 1
        [pair] = re.findall(r"── (\w, \w) ──\n+Four,[^─]*\(2 arms gave this answer\)", before)
        same = pair.lower().split(", ")
        assert f"{same[0]}={same[1]}" in before
        # Either letter chooses both.
        terminal.send(same[1])
        assert terminal.wait() == 0
        after = text_of(terminal)
    assert len(re.findall(r"mixture .*chosen +(?:solo|other)", after)) == 2
    assert not re.search(r"chosen +third", after)
    found = results(moa)
    solo, other, third = (found["mixture", name] for name in ("solo", "other", "third"))
    for row in (solo, other):
        # Two answers were shown; each of two arms wins with one of them.
        assert (row["wins"], row["shared_wins"], row["win_rate"], row["chance"]) == (1, 1, 1, 0.5)
    assert (third["wins"], third["win_rate"], third["chance"]) == (0, 0, 0.5)
    pairs = {
        pair["profile"]: (pair["wins"], pair["losses"], pair["ties"]) for pair in solo["against"]
    }
    assert pairs == {"other": (0, 0, 1), "third": (1, 0, 0)}
    assert re.search(r"wins +shared +ties", moa.run("compare", "--results").text)


def test_where_all_answers_are_equal_nothing_is_asked(moa: Moa, upstream: Upstream) -> None:
    say_the_same(upstream, "agg", "b")
    moa.profile("third", aggregator="agg", rounds=0)
    with moa.terminal("compare", "2+2?", "--profiles", "other,third") as terminal:
        assert terminal.wait() == 0
        shown = text_of(terminal)
    assert "all 2 arms gave this answer: counted as a tie" in shown
    assert ASK not in shown
    assert [(row["wins"], row["ties"], row["win_rate"]) for row in results(moa).values()] == [
        (0, 1, 0.5)
    ] * 2


def test_equal_final_answers_are_told(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="Two pairs. The answer is **4**."))
    upstream.always("b", Reply(text=r"Counting gives \boxed{4.0}"))
    upstream.always("agg", Reply(text="There are 4 of them, I think."))
    moa.profile("solo", aggregator="a", rounds=0)
    moa.profile("third", aggregator="agg", rounds=0)
    with moa.terminal("compare", "2+2?", "--profiles", "solo,other,third") as terminal:
        asked(terminal)
        stated = sorted((letter_of(terminal, "Two"), letter_of(terminal, "Counting")))
        names = " and ".join(map(str.upper, stated))
        assert re.search(rf"the same final answer in {names}: 4", text_of(terminal))
        terminal.send("q")
        assert terminal.wait() == 0


def test_a_note_is_kept_with_the_choice(moa: Moa) -> None:
    with moa.terminal("compare", "p", "p2", "--profiles", "one,other", rows=60) as terminal:
        asked(terminal)
        terminal.send("w")
        terminal.wait_for("note:")
        terminal.send("shorter,\x1b[31m and wärmer\r")
        asked(terminal, 2)
        terminal.send("a")
        asked(terminal, 3)
        assert "note: shorter, and wärmer" in text_of(terminal)
        terminal.send("w")
        terminal.wait_for(lambda: text_of(terminal).count("note:") == 3)
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.modes_before == terminal.modes_after
    assert sum(row["wins"] for row in results(moa).values()) == 1


def test_none_good_is_a_tie_that_is_told(moa: Moa) -> None:
    chosen(moa, key="0")
    for row in results(moa).values():
        assert (row["ties"], row["none_good"], row["win_rate"]) == (1, 1, 0.5)
    assert "none good" in moa.run("compare", "--results").text


def test_prompts_and_answers_are_kept_only_where_that_is_allowed(moa: Moa) -> None:
    file = moa.state.parent / "data" / "conversations.db"
    assert "kept without prompts and answers" in text_of(chosen(moa))
    assert b"berries" not in file.read_bytes()
    assert "kept, with prompts and answers" in text_of(chosen(moa, "--keep-texts"))
    assert file.stat().st_mode & 0o077 == 0
    moa.run("config", "set", "keep_texts", "true")
    assert "kept, with prompts and answers" in text_of(chosen(moa))
    assert "kept without" in text_of(chosen(moa, "--no-keep-texts"))
    with moa.terminal("compare", "p", "--keep-texts", "--no-save", columns=120) as terminal:
        assert terminal.wait() == 2
        assert "--keep-texts needs saving, which is off" in text_of(terminal)


def test_an_image_of_a_prompt_is_sent(moa: Moa, upstream: Upstream) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    image = {"type": "image_url", "image_url": {"url": url}}
    content = [{"type": "text", "text": "what is it?"}, image]
    row = {"messages": [{"role": "user", "content": content}]}
    (moa.folder / "p.jsonl").write_text(json.dumps(row))
    with moa.terminal("compare", "-f", "p.jsonl", "--profiles", "one,other") as terminal:
        asked(terminal)
        terminal.send("q")
        assert terminal.wait() == 0
    assert url in json.dumps(upstream.chats("b")[0].messages)
