"""`moa bench analyse`: what a mixture made of its proposals, held to published tools' figures and
to cases worked out by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.run.journal import Result
from tests.support.bench.folders import answer, failed, mixed, single, write_judge, write_run
from tests.support.bench.tables import csv_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

MEASURES = ("BLEU", "Levenshtein", "TF-IDF")
PROPOSERS = (
    "Qwen1.5-110B-Chat",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3-70B-Instruct",
    "Mixtral-8x22B-Instruct-v0.1",
    "dbrx-instruct",
)
MIXTURES = (
    "Together-MoA",
    "Together-MoA-Lite",
    "MoA-repo_Qwen-72B-round-1",
    "MoA-repo_Qwen-72B-round-2",
)


def analysed(moa: Moa, run: Path | str, *more: str, **options: Any) -> dict[str, Any]:
    """What `--json` says."""
    ran = moa.run("bench", "analyse", str(run), "--json", *more, **options)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def released(data: Path, model: str) -> list[dict[str, Any]]:
    path = data / f"alpaca_eval/slice50/model_outputs/{model}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return rows


def expected_likeness(data: Path) -> dict[tuple[str, str, str], tuple[float, ...]]:
    rows = csv_rows(data / "alpaca_eval/slice50/expected_similarity.csv")
    return {
        (row["output"], row["reference"], row["index"]): tuple(
            float(row[name]) for name in ("bleu", "levenshtein", "tfidf_cosine")
        )
        for row in rows
    }


def test_released_mixtures_are_as_like_their_proposers_as_the_published_tools_say(
    moa: Moa, data: Path
) -> None:
    indices = [
        str(annotation)
        for annotation in json.loads((data / "alpaca_eval/slice50/indices.json").read_text("utf-8"))
    ]
    texts = {mixture: released(data, mixture) for mixture in (*PROPOSERS, *MIXTURES)}
    items = [
        {"id": index, "prompt": row["instruction"]}
        for index, row in zip(indices, texts[PROPOSERS[0]], strict=True)
    ]
    results = [
        mixed(
            mixture,
            index,
            [[answer(proposer, texts[proposer][place]["output"]) for proposer in PROPOSERS]],
            answer(mixture, texts[mixture][place]["output"]),
        )
        for mixture in MIXTURES
        for place, index in enumerate(indices)
    ]
    found = analysed(moa, write_run(moa.folder / "run", items, results))
    assert found["measures"] == list(MEASURES)
    expected = expected_likeness(data)
    checked = 0
    for arm in found["arms"]:
        sums: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for pair in arm["pairs"]:
            model = pair["model"].removeprefix("lab:")
            told = expected[arm["arm"], model, pair["item"]]
            assert pair["likeness"] == pytest.approx(told, abs=1e-6)
            sums[model].append(told)
            checked += 1
        for near in arm["near"]:
            rows = sums[near["model"].removeprefix("lab:")]
            for place, measured in enumerate(near["likeness"]):
                mean = sum(row[place] for row in rows) / len(rows)
                assert measured["mean"]["value"] == pytest.approx(mean, abs=1e-6)
                assert measured["mean"]["n"] == 50
        assert sum(measured["nearest"]["value"] for measured in arm["near"]) == pytest.approx(1)
    assert checked == 4 * 5 * 50
    [layer] = found["arms"][0]["agreement"]
    for pair in layer["pairs"]:
        models = [model.removeprefix("lab:") for model in pair["models"]]
        both = [models, models[::-1]]
        there = [key for key in expected if list(key[:2]) in both]
        assert len(there) == 50
        # The published pairs go one way, which is the same for the two symmetric measures.
        for place in (1, 2):
            mean = sum(expected[key][place] for key in there) / 50
            assert pair["likeness"][place]["mean"]["value"] == pytest.approx(mean, abs=1e-6)


def test_a_run_over_released_outputs(moa: Moa, upstream: Upstream, data: Path) -> None:
    rows = released(data, "Together-MoA")[:6]
    by_prompt = {row["instruction"]: row["output"] for row in rows}

    def reply(request: Request) -> str:
        return str(by_prompt[request.messages[-1]["content"]])

    upstream.always("agg", Reply(text=reply))
    prompts = moa.folder / "mine.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in by_prompt), "utf-8"
    )
    files = [
        str(data / f"alpaca_eval/slice50/model_outputs/{proposer}.json")
        for proposer in PROPOSERS[:2]
    ]
    start = ["bench", "run", prompts.name, "-y"]
    paths = [part for file in files for part in ("--reference-paths", file)]
    ran = moa.run(*start, *paths)
    assert ran.code == 0, ran.err
    found = analysed(moa, "runs/mine-lab")
    expected = expected_likeness(data)
    indices = json.loads((data / "alpaca_eval/slice50/indices.json").read_text("utf-8"))
    pairs = found["arms"][0]["pairs"]
    assert len(pairs) == 12
    for pair in pairs:
        index = str(indices[int(pair["item"]) - 1])
        told = expected["Together-MoA", pair["model"].removeprefix("given:"), index]
        # Terms are weighed over the run's own texts.
        assert pair["likeness"][:2] == pytest.approx(told[:2], abs=1e-6)
    shown = moa.run("bench", "analyse", "runs/mine-lab")
    assert "runs/mine-lab has no judgements" in shown.text
    assert "Rank correlation of similarity and worth: cannot be computed" in shown.text


# Of four words; Levenshtein by characters, which is what the cases below are worked out by.
BEST, GOOD, POOR = "aaaaaaaa", "aaaabbbb", "bbbbbbbb"


def judged_run(moa: Moa, *, control: str = "aaaaaabb") -> Path:
    """Three items, each with proposals worth 9, 6 and 2, and a reply like the best one."""
    items = [{"id": str(n), "prompt": f"prompt {n}"} for n in (1, 2, 3)]
    results: list[Result] = []
    for n in "123":
        proposals = [answer("a", BEST), answer("b", GOOD), answer("c", POOR)]
        results.append(mixed("mixture", n, [proposals], answer("agg", "aaaaaaab")))
        results += [single(n, proposal) for proposal in proposals]
        results.append(single(n, answer("agg", control)))
    run = write_run(moa.folder / "run", items, results)
    worth = {"single:lab:a": 9.0, "single:lab:b": 6.0, "single:lab:c": 2.0, "mixture": 9.5}
    write_judge(run, [(arm, n, value) for arm, value in worth.items() for n in "123"])
    return run


def row_of(found: dict[str, Any], measure: str) -> dict[str, Any]:
    [row] = [row for row in found["arms"][0]["preference"]["rows"] if row["measure"] == measure]
    return {name: item["value"] for name, item in row.items() if name != "measure"} | {
        "n": row["reply"]["n"]
    }


@pytest.mark.parametrize(
    ("control", "correlation"),
    [
        # Similarity to the three: 6/8, 6/8, 2/8, so ranks 2.5, 2.5, 1 against 3, 2, 1.
        ("aaaaaabb", 1.5 / 3**0.5),
        ("bbbbbbba", -1.0),
        ("aaaaaaaaa", 1.0),
    ],
)
def test_the_correlation_stands_beside_that_of_a_control(
    moa: Moa, control: str, correlation: float
) -> None:
    found = analysed(moa, judged_run(moa, control=control))
    assert (found["unit"], found["judge"]) == ("rating, of 10", "lab:judge")
    assert found["arms"][0]["preference"]["control"] == "single:lab:agg"
    row = row_of(found, "Levenshtein")
    assert row == pytest.approx(
        {"reply": 1, "control": correlation, "difference": 1 - correlation, "n": 3}
    )


def test_the_table_says_how_to_read_the_control(moa: Moa) -> None:
    ran = moa.run("bench", "analyse", str(judged_run(moa)))
    text = " ".join(ran.text.split())
    assert "measure reply control reply - control" in text
    assert "Levenshtein +1.00±0.00 (n 3) +0.87±0.00 (n 3) +0.13±0.00 (n 3)" in text
    assert "control: single:lab:agg, which never saw the proposals." in text
    assert "only the difference can tell that the reply follows the better proposals" in text


def test_without_a_control_the_table_says_that_it_proves_nothing(moa: Moa) -> None:
    run = judged_run(moa)
    kept = [
        line
        for line in (run / "items.jsonl").read_text("utf-8").splitlines()
        if '"single:lab:agg"' not in line
    ]
    (run / "items.jsonl").write_text("".join(f"{item}\n" for item in kept), "utf-8")
    found = analysed(moa, run)
    assert row_of(found, "Levenshtein")["control"] is None
    assert "the column `reply` proves nothing" in found["arms"][0]["preference"]["notes"][-1]
    # A file of anybody's answers does as well.
    outputs = [
        {"instruction": f"prompt {n}", "output": "bbbbbbba", "generator": "other"} for n in "123"
    ]
    (moa.folder / "other.json").write_text(json.dumps(outputs), "utf-8")
    found = analysed(moa, run, "--control", "other.json")
    assert row_of(found, "Levenshtein")["control"] == pytest.approx(-1)
    assert found["arms"][0]["preference"]["control"] == "other"


def test_a_control_that_is_a_proposal_is_compared_with_the_others(moa: Moa) -> None:
    found = analysed(moa, judged_run(moa), "--control", "single:lab:b")
    row = row_of(found, "Levenshtein")
    # To the other two, b is equally alike: that is no order.
    assert (row["reply"], row["control"], row["difference"]) == (pytest.approx(1), None, None)
    found = analysed(moa, moa.folder / "run", "--control", "single:lab:c")
    row = row_of(found, "Levenshtein")
    assert (row["control"], row["difference"]) == pytest.approx((-1, 2))
    notes = found["arms"][0]["preference"]["notes"]
    assert "the control is itself a proposal 3 times" in notes[0]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("none", "--control: there is no arm and no file `none` (the arms are mixture, single:"),
        ("mixture", "--control: the arm `mixture` saw proposals itself"),
    ],
)
def test_no_such_control(moa: Moa, typed: str, told: str) -> None:
    ran = moa.run("bench", "analyse", str(judged_run(moa)), "--control", typed)
    assert ran.code == 2
    assert ran.err.startswith(f"moa: {told}")
    assert (ran.out, ran.err.count("\n")) == (b"", 1)


def test_a_lone_answer_stands_in_for_a_proposal_that_was_not_judged(moa: Moa) -> None:
    items = [{"id": "1", "prompt": "p"}, {"id": "2", "prompt": "p"}]
    results = []
    for n in "12":
        proposals = [answer("a", BEST), answer("b", GOOD)]
        results.append(mixed("mixture", n, [proposals, proposals], answer("agg", "aaaaaaab")))
        results += [single(n, answer("a", BEST)), single(n, answer("b", "quite another"))]
    run = write_run(moa.folder / "run", items, results)
    judged = [("single:lab:a", "1", 3.0), ("single:lab:b", "1", 8.0), ("single:lab:a", "2", 3.0)]
    write_judge(run, [*judged, ("single:lab:b", "2", None)])
    found = analysed(moa, run)
    row = row_of(found, "Levenshtein")
    assert (row["reply"], row["n"]) == (pytest.approx(-1), 1)
    notes = found["arms"][0]["preference"]["notes"]
    assert notes[0].startswith("left out: 1 of 2 turns with proposals that nobody judged")
    assert notes[1].startswith("1 of 2 proposals were not judged themselves")


def test_released_proposals_are_worth_what_the_anchors_are(moa: Moa) -> None:
    proposals = [answer("given:old", BEST), answer("given:new", POOR)]
    mixture = mixed("mixture", "1", [proposals], answer("agg", POOR))
    run = write_run(moa.folder / "run", [{"id": "1", "prompt": "p"}], [mixture])
    outputs = [
        Result("anchor:old", "1", replies=(BEST,)),
        Result("anchor:new", "1", replies=(POOR,)),
    ]
    verdicts = [("anchor:old", "1", 1.1), ("anchor:new", "1", 1.9), ("mixture", "1", 1.5)]
    write_judge(run, verdicts, "pairwise", outputs=outputs)
    [arm] = analysed(moa, run)["arms"]
    [row] = [row for row in arm["preference"]["rows"] if row["measure"] == "Levenshtein"]
    assert (row["reply"]["value"], row["reply"]["n"]) == (pytest.approx(1), 1)
    assert not any("stands in" in note for note in arm["preference"]["notes"])


def test_proposals_of_one_worth_have_no_better_one(moa: Moa) -> None:
    proposals = [answer("a", BEST), answer("b", GOOD)]
    results = [mixed("mixture", "1", [proposals], answer("agg", BEST))]
    results += [single("1", proposal) for proposal in (*proposals, answer("agg", POOR))]
    run = write_run(moa.folder / "run", [{"id": "1", "prompt": "p"}], results)
    write_judge(run, [("single:lab:a", "1", 5.0), ("single:lab:b", "1", 5.0)])
    [arm] = analysed(moa, run)["arms"]
    assert arm["preference"]["rows"] == []
    assert arm["preference"]["notes"] == [
        "left out: 1 of 1 turn whose proposals are all worth the same"
    ]


def test_several_judges_are_named(moa: Moa) -> None:
    run = judged_run(moa)
    other = run / "judges" / "lab-other"
    other.mkdir()
    (other / "judge.json").write_text(json.dumps({"model": "lab:other", "kind": "rating"}))
    found = analysed(moa, run)
    assert found["notes"] == ["no judgements are used: --judge names one of lab:judge, lab:other"]
    assert found["arms"][0]["preference"]["rows"] == []
    assert analysed(moa, run, "--judge", "lab:judge")["judge"] == "lab:judge"
    ran = moa.run("bench", "analyse", str(run), "--judge", "lab:none")
    assert ran.err.startswith(f"moa: {run}: there are no judgements by lab:none (judged by: ")


def answered_run(moa: Moa) -> Path:
    """Two items with the answers 1 and 2; two layers of two proposals."""
    items = [{"id": n, "prompt": f"prompt {n}", "answer": n} for n in "12"]
    said = {
        "1": ((("1", "5"), ("1", "1")), "1"),
        "2": ((("2", "2"), ("2", "7")), "2"),
    }
    results = []
    for n, (layers, reply) in said.items():
        made = [
            [
                answer(model, text, f"{n}{number}{model}", calls=1, prompt_tokens=10, cost=0.01)
                for model, text in zip("ab", layer, strict=True)
            ]
            for number, layer in enumerate(layers, 1)
        ]
        last = answer("agg", reply, f"{n}agg", calls=1, completion_tokens=7, cost=0.02)
        results.append(mixed("mixture", n, made, last))
    seconds = {
        **{"11a": 1.0, "11b": 3.0, "12a": 2.0, "12b": 1.0, "1agg": 4.0},
        **{"21a": 1.0, "21b": 1.0, "22a": 1.0, "22b": 1.0, "2agg": 1.0},
    }
    return write_run(moa.folder / "run", items, results, seconds=seconds)


def test_what_each_layer_added(moa: Moa) -> None:
    found = analysed(moa, answered_run(moa))
    assert (found["unit"], found["judge"]) == ("right answers, %", None)
    told = [
        tuple(arm[name] and arm[name]["value"] for name in ("accuracy", "gained", "lost"))
        for arm in found["arms"][0]["layers"]
    ]
    # Layer 1: a half and all are right; layer 2: all and a half; then both replies are.
    assert told == [(0.75, None, None), (0.75, 0.25, 0.25), (1.0, 0.25, 0.0)]
    # Of each model: both of a's first proposals are right, one of b's; then the same.
    by_model = {
        (row["model"], row["layer"]): row["accuracy"]["value"]
        for row in found["arms"][0]["accuracy"]
    }
    assert by_model == {
        **{("lab:a", 1): 100, ("lab:b", 1): 50},
        **{("lab:a", 2): 100, ("lab:b", 2): 50},
    }
    shown = moa.run("bench", "analyse", "run").text
    assert "Right answers by model and layer, %" in shown
    characters = found["arms"][0]["layers"][0]["characters"]
    assert (characters["value"], characters["n"]) == (1.0, 4)
    assert [arm["is_reply"] for arm in found["arms"][0]["layers"]] == [False, False, True]
    alike = [
        [
            proposer["mean"]["value"]
            for proposer in layer["likeness"]
            if proposer["measure"] == "Levenshtein"
        ]
        for layer in found["arms"][0]["layers"]
    ]
    # 1 and 1 after 1 and 5: half of the pairs; 2 and 7 after 2 and 2: half; 1; a half.
    assert alike == [[], [0.5], [0.75]]
    agreement = [arm["likeness"][1]["mean"]["value"] for arm in found["arms"][0]["agreement"]]
    assert agreement == [0.5, 0.5]


def test_right_answers_are_told_beside_a_judge(moa: Moa) -> None:
    run = answered_run(moa)
    judge = write_judge(run, [("mixture", "1", 7.0)])
    found = analysed(moa, run, "--judge", judge)
    assert found["unit"] == "rating, of 10"
    assert found["arms"][0]["layers"][-1]["accuracy"]["value"] == 1


def test_what_it_took(moa: Moa) -> None:
    [arm] = analysed(moa, answered_run(moa))["arms"]
    # Item 1: 3 + 2 + 4 on the path, 11 in all; item 2: 3, and 5.
    path, total = arm["seconds_path"], arm["seconds_sum"]
    assert (path["median"], path["ninetieth"], path["mean"]["value"]) == (6.0, 9.0, 6.0)
    assert (total["median"], total["ninetieth"], total["mean"]["value"]) == (8.0, 11.0, 8.0)
    assert path["mean"]["standard_error"] == pytest.approx(3.0)
    by_model = {item["name"]: item for item in arm["by_model"]}
    assert {name: row["usage"]["calls"] for name, row in by_model.items()} == {
        "lab:a": 4,
        "lab:b": 4,
        "lab:agg": 2,
    }
    assert by_model["lab:agg"]["cost"]["value"] == pytest.approx(0.02)
    assert by_model["lab:a"]["usage"]["cost"] == pytest.approx(0.04)
    layers = [(row["name"], row["usage"]["prompt_tokens"]) for row in arm["by_layer"]]
    assert layers == [("layer 1", 40), ("layer 2", 40), ("reply", 0)]


def test_tables_fit_a_terminal_of_80_columns(moa: Moa) -> None:
    run = answered_run(moa)
    with moa.terminal("bench", "analyse", str(run), rows=60) as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    for title in ("Similarity of the reply", "Agreement", "What each layer added", "Latency"):
        assert title in text
    assert "Right answers by layer" in text
    written = moa.run("bench", "analyse", str(run), "-o", "out.txt")
    assert (written.out, written.err) == (b"", "moa: wrote out.txt\n")
    assert "Tokens and cost by model" in (moa.folder / "out.txt").read_text("utf-8")


def test_turns_of_an_item_are_one_observation(moa: Moa) -> None:
    items = [{"id": n, "prompt": n} for n in "123"]
    results: list[Result] = []
    for n in "123":
        proposals = [answer("a", BEST), answer("b", POOR)]
        replies = answer("agg", BEST if n == "1" else POOR), answer("agg", BEST)
        results.append(mixed("mixture", n, [proposals], *replies))
        results += [single(n, proposal, proposal) for proposal in proposals]
    run = write_run(moa.folder / "run", items, results)
    write_judge(
        run,
        [(f"single:lab:{model}", n, value) for model, value in (("a", 9), ("b", 2)) for n in "123"],
    )
    [arm] = analysed(moa, run)["arms"]
    assert (arm["items"], arm["turns"]) == (3, 6)
    nearest = arm["near"][0]["nearest"]
    # Shares 1 and 1, 0 and 1, 0 and 1: mean 2/3; by item they differ by 2/3, -1/3 and -1/3.
    assert (nearest["value"], nearest["n"]) == (pytest.approx(2 / 3), 6)
    assert nearest["standard_error"] == pytest.approx((6 / 9 * 3 / 2) ** 0.5 / 6)
    # Only first turns were judged.
    [row] = [row for row in arm["preference"]["rows"] if row["measure"] == "Levenshtein"]
    assert (row["reply"]["value"], row["reply"]["n"]) == (pytest.approx(-1 / 3), 3)
    assert "left out: 3 of 6 turns" in arm["preference"]["notes"][0]


def test_failed_items_make_it_partial(moa: Moa) -> None:
    items = [{"id": n, "prompt": n} for n in "12"]
    results = [
        mixed("mixture", "1", [[answer("a", "x"), answer("b", "y")]], answer("agg", "x")),
        failed("mixture", "2"),
    ]
    found = analysed(moa, write_run(moa.folder / "run", items, results))
    assert found["arms"][0]["items"] == 1
    assert "partial: mixture has 1 of 2 items" in found["notes"]
    near = found["arms"][0]["near"][0]
    assert near["nearest"] == {"value": 1.0, "standard_error": None, "n": 1}


def test_without_sacrebleu_the_other_measures_are_told(moa: Moa, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sacrebleu.py").write_text("raise ImportError('not here')")
    path = f"{tmp_path / 'without'}:{moa.environment['PYTHONPATH']}"
    found = analysed(moa, answered_run(moa), env={"PYTHONPATH": path})
    assert found["measures"] == ["Levenshtein", "TF-IDF"]
    assert found["notes"] == ["no BLEU: it needs sacrebleu (pip install 'moa-chat[bench]')"]


def test_a_run_without_proposals_has_nothing_to_analyse(moa: Moa) -> None:
    results = [single("1", answer("a", "x"))]
    run = write_run(moa.folder / "run", [{"id": "1", "prompt": "p"}], results)
    ran = moa.run("bench", "analyse", str(run))
    assert ran.code == 1
    assert "no arm has answers made of proposals" in ran.err
    ran = moa.run("bench", "analyse", "elsewhere")
    assert ran.err == ("moa: elsewhere: is not the folder of a run: there is no run.json\n")


def test_a_run_whose_calls_all_failed_has_that_as_the_reason(moa: Moa) -> None:
    results = [single("1", answer("a", "x")), failed("mixture", "1"), failed("mixture", "2")]
    items = [{"id": "1", "prompt": "p"}, {"id": "2", "prompt": "q"}]
    run = write_run(moa.folder / "run", items, results)
    ran = moa.run("bench", "analyse", str(run))
    assert ran.code == 1
    reason = "all results with proposals failed, the last one with: out of order"
    assert f"{reason} (the same `moa bench run` command tries them again)" in ran.err
