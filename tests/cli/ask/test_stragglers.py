"""A straggler is named wherever a turn is told: on standard error, in JSON, on the board, by the
server, by `moa batch` and in the history; `moa bench` waits for all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moa_cli.core.events import ProposerFinished, from_dict
from moa_cli.engine.prompts import UNFINISHED
from tests.support.bench.own_runs import item_lines, write_prompts
from tests.support.command import Moa
from tests.support.server import chunks, serving
from tests.support.upstream import Reply, Request, Upstream

WRITING = "Rain is water that falls. It "
STALLED = Reply(chunks=[WRITING, "never sent"], stall_after=1)
SLOW = "lab:c: too slow: 2 of 3 answers stood, 0.3 s of patience had passed"


@pytest.fixture
def hasty(moa: Moa, upstream: Upstream) -> Moa:
    """Two of three are enough, and the third never ends: it begins before they answer."""

    def quick(request: Request) -> Reply:
        asked = len(upstream.chats(request.model))
        return Reply(after=lambda: sum(call.sent > 0 for call in upstream.chats("c")) >= asked)

    upstream.always("a", quick)
    upstream.always("b", quick)
    upstream.always("c", STALLED)
    moa.profile("lab", "a", "b", "c", quorum=2, patience=0.3)
    return moa


def references(upstream: Upstream) -> str:
    [system] = [m["content"] for m in upstream.chats("agg")[-1].messages if m["role"] == "system"]
    return str(system).partition("Responses from models:")[2]


def test_a_straggler_is_named_on_standard_error_and_in_json(hasty: Moa) -> None:
    ran = hasty.run("ask", "why?")
    assert (ran.code, ran.text) == (0, "ok\n")
    assert f"moa: degraded, lost {SLOW}" in ran.err
    assert f"moa: lost {SLOW}" in hasty.run("ask", "-v", "why?").err
    told = json.loads(hasty.run("ask", "--json", "why?").text)
    assert told["lost"] == [SLOW]
    proposal = told["proposals"][0][2]
    assert proposal["error"]["kind"] == "Straggler"
    assert (proposal["text"], "unfinished" in proposal) == (WRITING, False)
    # What it cost is booked.
    assert proposal["usage"]["calls"] == proposal["usage"]["estimated_calls"] == 1
    assert proposal["usage"]["completion_tokens"] > 0


def test_an_unfinished_answer_is_said_to_be_one_everywhere(hasty: Moa, upstream: Upstream) -> None:
    used = f"{SLOW}; used unfinished"
    ran = hasty.run("ask", "--use-partial", "--show-proposals", "why?")
    assert references(upstream).endswith(f"\n3. {WRITING.strip()}{UNFINISHED}")
    assert f"degraded, lost {used}" in ran.err
    assert f"{WRITING.strip()}\n(used unfinished)\n" in ran.err
    shown = hasty.run("history", "show", "--proposals").text
    assert "(used unfinished)" in shown
    exported = hasty.run("history", "export", "--all", "--proposals").text
    assert "used unfinished" in exported
    kept = hasty.run("history", "export", "--all", "--format", "json").text
    assert '"unfinished": true' in kept
    told = json.loads(hasty.run("ask", "--use-partial", "--json", "why?").text)
    assert told["lost"] == [used]
    assert told["cut"] == ["the proposal of lab:c was used unfinished"]
    assert [proposal.get("unfinished") for proposal in told["proposals"][0]] == [None, None, True]
    lines = hasty.run("ask", "--use-partial", "--output", "jsonl", "why?").text.splitlines()
    events = [from_dict(json.loads(line)) for line in lines]
    finished = [event.proposal for event in events if isinstance(event, ProposerFinished)]
    assert [proposal.unfinished for proposal in finished] == [False, False, True]


def test_the_board_names_the_straggler(hasty: Moa) -> None:
    with hasty.terminal("ask", "why?", columns=120, rows=40) as terminal:
        assert terminal.wait() == 0
        text = "\n".join(terminal.lines())
    assert "too slow: 2 of 3 answers stood" in text
    assert "enough" not in text


def test_the_server_names_the_straggler(hasty: Moa, upstream: Upstream) -> None:
    with serving(hasty) as server:
        whole = server.ask().json()["moa"]
        assert whole["lost"] == [SLOW]
        assert whole["layers"][0]["calls"][2]["error"]["kind"] == "Straggler"
        asked = {"use_partial": True, "patience": 0.1}
        used = server.ask(moa=asked).json()["moa"]
        assert used["layers"][0]["calls"][2]["unfinished"] is True
        assert references(upstream).endswith(UNFINISHED)
        text = server.ask(stream=True, moa={**asked, "show_proposals": True}).text
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(text) if chunk["choices"]]
        told = "".join(delta.get("reasoning_content") or "" for delta in deltas)
        assert f"### lab:c (round 1)\n\n{WRITING}\n\n(used unfinished)\n\n" in told


def test_a_batch_keeps_to_the_quorum_and_names_the_straggler(hasty: Moa) -> None:
    ran = hasty.run("batch", write_prompts(hasty, 1), "out.jsonl", "-p", "lab", "--proposals")
    assert ran.code == 0
    assert "1 without some of the proposals" in ran.err
    assert f"moa: degraded, 1 of them lost {SLOW}\n" in ran.err
    [line] = map(json.loads, (hasty.folder / "out.jsonl").read_text().splitlines())
    assert line["lost"] == [SLOW]


def test_a_benchmark_waits_for_all_unless_it_is_told_otherwise(
    hasty: Moa, upstream: Upstream
) -> None:
    upstream.always("c", Reply(text="late", delay=1.5))
    start = ["bench", "run", write_prompts(hasty, 1), "-p", "lab", "-y", "-o"]
    assert hasty.run(*start, "all").code == 0
    [result] = item_lines(hasty.folder / "all")
    assert [answer["text"] for answer in result["turns"][0]["proposals"][0]][2] == "late"
    assert "quorum" not in settings(hasty.folder / "all")
    upstream.always("c", STALLED)
    assert hasty.run(*start, "hasty", "--quorum", "2").code == 0
    [result] = item_lines(hasty.folder / "hasty")
    assert result["turns"][0]["lost"] == [SLOW]
    assert result["error"] is None
    assert settings(hasty.folder / "hasty")["quorum"] == 2


def settings(run: Path) -> dict[str, object]:
    profile: dict[str, object] = json.loads((run / "run.json").read_text())["profile"]
    return profile


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("quorum = 0", "`quorum` must be 1 or more, not 0"),
        ("patience = -1", "`patience` must be 0 or more, not -1"),
        ("[[layers]]\nquorum = 'two'", "`layers[1].quorum` must be a whole number, not 'two'"),
    ],
)
def test_a_wrong_quorum_is_refused_with_its_place(moa: Moa, text: str, named: str) -> None:
    profile = "[[proposers]]\nmodel = 'lab:a'\n[aggregator]\nmodel = 'lab:agg'\n"
    path = moa.config / "profiles" / "wrong.toml"
    head, _, layers = text.partition("[[layers]]")
    path.write_text(f"{head}\n{profile}" + (f"[[layers]]{layers}\n" if layers else ""))
    ran = moa.run("ask", "-p", "wrong", "why?")
    assert ran.code == 2
    assert named in ran.err
    assert "wrong.toml" in ran.err


def test_the_quorum_of_a_layer_is_shown(moa: Moa) -> None:
    layers = [{"quorum": 2, "patience": 1.5}, {}]
    moa.profile("lab", "a", "b", "c", layers=layers, quorum=3)
    lines = moa.run("profile", "show", "lab").text.splitlines()
    rows = {line.split()[0]: line.split()[1] for line in lines if line.split()}
    assert (rows["quorum"], rows["patience"]) == ("3", "5.0")
    assert (rows["layers[1].quorum"], rows["layers[1].patience"]) == ("2", "1.5")
