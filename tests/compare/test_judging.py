"""`moa compare judge`: a model decides what the user decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from moa_cli.bench.run.journal import Judgement
from moa_cli.compare.judging import agreement_of, decided_pairs
from moa_cli.store.comparisons import ComparedTexts, Comparison
from tests.compare.test_choices import contenders, database
from tests.support.bench.scores import write_judgements, write_questions, write_run
from tests.support.command import Moa
from tests.support.kept import open_store
from tests.support.upstream import Reply, Request, Upstream

GOOD, FAIR, POOR = "It is good.", "It is fair.", "It is poor."
_ORDER = {GOOD: 2, FAIR: 1, POOR: 0}


def keep(moa: Moa, *rows: tuple[Sequence[str], int | None]) -> None:
    """Keep choices between these answers: the place of the chosen one, or None for a tie."""
    store = open_store(database(moa))
    for answers, winner in rows:
        arms = contenders(*(f"arm{place}" for place in range(len(answers))))
        numbers = [list(dict.fromkeys(answers)).index(answer) for answer in answers]
        shown = tuple(numbers) if len(set(numbers)) < len(numbers) else ()
        texts = ComparedTexts("How is it?", tuple(answers), (("user", "earlier words"),))
        store.comparisons.add(Comparison(1e9, arms, winner, shown, texts=texts))
    store.close()


def judged(request: Request) -> str:
    """What a judge says who knows which answer is better."""
    text = request.messages[-1]["content"]
    places = sorted((text.find(answer), answer) for answer in _ORDER if answer in text)
    (_, first), (_, second) = places
    return "I think so. [[A>B]]" if _ORDER[first] > _ORDER[second] else "Rather [[B>>A]]"


def test_a_judge_is_asked_blind_in_both_orders_and_only_once(moa: Moa, upstream: Upstream) -> None:
    # Of the last one, the losers among themselves are not known, and the equal ones are one.
    keep(moa, ([GOOD, POOR], 0), ([POOR, GOOD], 0), ([FAIR, GOOD, FAIR], 1), ([GOOD], None))
    upstream.always("judge", Reply(text=judged, usage=(100, 10)))
    start = ("compare", "judge", "--judge", "lab:judge")
    ran = moa.run(*start)
    assert (ran.code, ran.out) == (2, b"")
    assert "pass --yes" in ran.err
    assert upstream.chats("judge") == []
    ran = moa.run(*start, "-y")
    assert ran.code == 0, ran.err
    asked = [str(request.messages) for request in upstream.chats("judge")]
    assert len(asked) == 6
    for text in asked:
        assert "arm0" not in text
        assert "earlier words" in text
    pair = [text for text in asked if POOR in text]
    assert sum(text.find(GOOD) < text.find(POOR) for text in pair) == len(pair) / 2
    assert "6 calls" in ran.err
    assert "lab:judge judges 3 pairs of 3 choices, in both orders" in ran.err
    assert "lab:judge and you: 3 pairs of 3 choices" in ran.text
    assert "without ties: 2 of 3 alike" in ran.text
    assert "the same verdict: 67 % (by chance 50 %)" in ran.text
    assert moa.run(*start, "-y").text == ran.text
    keep(moa, ([POOR, FAIR], None))
    ran = moa.run(*start, "-y", "--json")
    assert len(upstream.chats("judge")) == 8
    [told] = json.loads(ran.out)
    assert (told["pairs"], told["same"], told["choices"]) == (4, 0.5, 4)
    folder = moa.state.parent / "data/compare/judges/lab-judge"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))


def test_a_judge_that_goes_by_position_finds_ties(moa: Moa, upstream: Upstream) -> None:
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], None))
    upstream.always("judge", Reply(text="[[A>>B]]"))
    ran = moa.run("compare", "judge", "--judge", "lab:judge", "-y", "--json")
    [told] = json.loads(ran.out)
    assert (told["same"], told["decided"], told["kappa"]) == (0.5, 0, 0.0)
    assert told["orders_agree"]["value"] == 0
    assert told["first_better"]["value"] == 1


def test_what_cannot_be_judged_is_told(moa: Moa, upstream: Upstream) -> None:
    start = ("compare", "judge", "--judge", "lab:judge", "-y")
    ran = moa.run(*start)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err == (
        "moa: no choice with prompt and answers is kept (`moa compare --keep-texts` keeps them)\n"
    )
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], 1))
    upstream.always("judge", Reply(text="Who knows?"))
    ran = moa.run(*start)
    assert ran.code == 1
    assert "unreadable verdicts: 4 of 4" in ran.err
    assert "Traceback" not in ran.err
    upstream.always("judge", Reply(status=401, error={"error": {"message": "no"}}))
    ran = moa.run("compare", "judge", "--judge", "lab:other", "-y")
    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert moa.run("compare", "judge", "--judge", "nobody:judge", "-y").code == 2


def test_a_cap_holds_and_the_same_command_goes_on(moa: Moa, upstream: Upstream) -> None:
    price = {"prompt": 0.0, "completion": 10_000.0}
    moa.configure(providers=moa.settings()["providers"], prices={"lab:judge": price})
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], 1))
    # A call costs 0.10 USD, and may take 40.96.
    upstream.always("judge", Reply(text=judged, usage=(100, 10)))
    start = ("compare", "judge", "--judge", "lab:judge", "-y", "--concurrency", "1")
    ran = moa.run(*start, "--max-cost", "41.1")
    assert ran.code == 3, ran.err
    asked = len(upstream.chats("judge"))
    assert 0 < asked < 4
    assert moa.run(*start).code == 0
    assert len(upstream.chats("judge")) == 4
    assert "cost: $0.40" in moa.run(*start).text


def test_ctrl_c_ends_it_at_the_question_and_at_work(moa: Moa, upstream: Upstream) -> None:
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], 1))
    start = ("compare", "judge", "--judge", "lab:judge", "--concurrency", "1")
    with moa.terminal(*start) as terminal:
        terminal.wait_for("Go on?")
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.modes_before == terminal.modes_after
    assert upstream.chats("judge") == []
    with moa.terminal(*start) as terminal:
        terminal.wait_for("Go on?")
        terminal.send("n\r")
        assert terminal.wait() == 1
    assert upstream.chats("judge") == []
    upstream.enqueue("judge", Reply(text=judged))
    upstream.always("judge", Reply(stall_after=0))
    with moa.terminal(*start, "-y") as terminal:
        upstream.wait_for(lambda: len(upstream.chats("judge")) == 2 and upstream.in_flight > 0)
        terminal.send("\x03")
        assert terminal.wait() == 130
        told = " ".join("\n".join(terminal.lines()).split())
        assert "run the same command again to resume" in told
    upstream.always("judge", Reply(text=judged))
    assert moa.run(*start, "-y").code == 0
    # One was answered before, one was cut off.
    assert len(upstream.chats("judge")) == 5


def test_deleted_words_are_deleted_from_judges_too(moa: Moa, upstream: Upstream) -> None:
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], 1))
    upstream.always("judge", Reply(text=lambda request: f"{judged(request)} for it is planted"))
    assert moa.run("compare", "judge", "--judge", "lab:judge", "-y").code == 0
    folder = moa.state.parent / "data/compare/judges/lab-judge"

    def lines(name: str) -> int:
        return len((folder / name).read_text("utf-8").splitlines())

    assert (lines("judgements.jsonl"), lines("calls.jsonl")) == (4, 4)
    assert moa.run("compare", "delete", "1", "--texts", "-y").code == 0
    assert (lines("judgements.jsonl"), lines("calls.jsonl")) == (2, 2)
    ran = moa.run("compare", "judge", "--judge", "lab:judge", "-y")
    assert ran.code == 0
    assert "1 of 2 choices: without prompt and answers, not judged" in ran.err
    assert len(upstream.chats("judge")) == 4
    assert moa.run("compare", "delete", "--all", "-y").code == 0
    assert not folder.exists()


def test_kappa_is_cohen_s_over_the_pairs_read_from_both_sides() -> None:
    numbers = count(1)
    made = [
        Comparison(
            1.0,
            contenders("x", "y"),
            winner,
            texts=ComparedTexts("p", ("one", "two")),
            number=next(numbers),
        )
        for winner in (0, 0, 1, 1, 1, None, None, 0, 1, 0)
    ]
    pairs = decided_pairs(made)
    # Of the second answer: in the first order, and in the other.
    said = [(-1, -2), (1, 1), (2, 2), (1, 1), (-1, 1), (0, 0), (1, 1), (-2, -1), (1, 0), (-1, -1)]
    told = [
        Judgement(*pair.name, turn=game, value=float(value))
        for pair, games in zip(pairs, said, strict=True)
        for game, value in enumerate(games)
    ]
    agreement = agreement_of("j", pairs, told)
    users = [pair.verdict for pair in pairs]
    judges = [
        (first < 0) - (first > 0) if (first > 0) - (first < 0) == (second > 0) - (second < 0) else 0
        for first, second in said
    ]
    # Each found so many ties, of ten; the other labels are as frequent as each other.
    ties = users.count(0) / 10, judges.count(0) / 10
    chance = ties[0] * ties[1] + (1 - ties[0]) * (1 - ties[1]) / 2
    assert agreement.chance == pytest.approx(chance)
    assert agreement.same is not None
    assert agreement.kappa == pytest.approx((agreement.same - chance) / (1 - chance))
    assert agreement.same == sum(map(int.__eq__, users, judges)) / 10
    assert agreement.interval is not None
    assert agreement.interval.low < (agreement.kappa or 0) < agreement.interval.high
    assert agreement == agreement_of("j", pairs, told)


def test_the_yardstick_of_a_run_s_judges(moa: Moa, upstream: Upstream) -> None:
    file = write_questions(moa.folder / "data", "mt", 2)
    folder: Path = write_run(moa.folder / "runs/mt", file, {"mixture": ()})
    write_judgements(folder, {"mixture": (9, 8)}, "lab:judge")
    keep(moa, ([GOOD, POOR], 0), ([GOOD, FAIR], 1))
    assert "and you" not in moa.run("bench", "agreement", "runs/mt").text
    upstream.always("judge", Reply(text=judged))
    assert moa.run("compare", "judge", "--judge", "lab:judge", "-y").code == 0
    ran = moa.run("bench", "agreement", "runs/mt")
    assert "lab:judge and you: 2 pairs of 2 choices" in ran.text
    told = json.loads(moa.run("bench", "agreement", "runs/mt", "--json").out)
    [found] = told["rejudged_choices"]
    assert (found["judge"], found["same"]) == ("lab:judge", 0.5)
