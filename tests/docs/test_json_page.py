"""docs/reference/json.md names the fields that each `--json` prints: none is missing, none is
invented."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from moa_cli.compare.choices import choice_to_dict
from moa_cli.compare.judging import agreement_of, decided_pairs
from moa_cli.compare.leaderboard import LeaderboardRow
from moa_cli.core.conversation import Usage
from moa_cli.store.comparisons import ComparedTexts, Comparison, Contender
from tests.support.command import Moa
from tests.support.pages import ROOT, machine
from tests.support.upstream import Reply, Request, Upstream

PAGE = (ROOT / "docs" / "reference" / "json.md").read_text("utf-8")
RUN = (
    "bench run prompts.jsonl -m openai:a,openai:b,openai:c -a openai:a"
    " --arms mixture,single -o runs/mine -y"
)
COMMANDS = {
    # A strategy that has all of a turn's fields: reviews, a decision and a report.
    "moa ask": "ask --json --strategy fusion Why?",
    "moa config list": "config list --json",
    "moa profile list": "profile list --json",
    "moa models": "models local --json",
    "moa history list": "history list --json",
    "moa history show": "history show --json",
    "moa history search": "history search blue --json",
    "moa bench list": "bench list --json",
    "moa bench report": "bench report runs/mine --format json",
    "moa bench analyse": "bench analyse runs/mine --json",
    "moa bench reproduce": "bench reproduce table8 --json",
    "moa bench select": "bench select runs/mine --json",
}
# Only where something went wrong, or the input has such a field.
SOMETIMES = {"lost", "error", "input", "sample"}


def _said(request: Request) -> str:
    """An answer, or a comparison of answers."""
    compares = "one JSON object" in str(request.messages)
    return '{"points": [], "groups": [[1, 2]]}' if compares else "A short answer: 4"


@pytest.fixture(scope="module")
def moa(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A machine with a conversation, a run and a batch."""
    with Upstream() as upstream:
        cited = {"citations": ["https://example.org/sky"]}
        upstream.always("*", Reply(text=_said, more=cited))
        moa = machine(tmp_path_factory.mktemp("json") / "home", upstream.url)
        for command in ("ask 'Why is the sky blue?'", RUN):
            assert moa.run(*shlex.split(command)).code == 0
        yield moa


def documented(command: str) -> set[str]:
    """The fields in the section of that command."""
    section = PAGE.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    assert section, command
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def printed(value: Any, known: set[str], path: str = "") -> set[str]:
    """The paths of all fields in `value`, as deep as the page describes them."""
    if isinstance(value, list):
        return set().union(*(printed(each, known, path) for each in value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, held in value.items():
        here = f"{path}{key}"
        below = f"{here}[]." if isinstance(held, list) else f"{here}."
        deeper = any(name.startswith(below) for name in known)
        # A list that is described field by field need not be described itself.
        found |= printed(held, known, below) if deeper else {here}
        if here in known:
            found.add(here)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_fields_are_those_of_the_page(moa: Moa, command: str) -> None:
    ran = moa.run(*shlex.split(COMMANDS[command]))
    assert ran.code == 0, ran.err
    known = documented(command)
    assert printed(json.loads(ran.text), known) == known


def test_the_fields_of_an_estimate_are_those_of_the_page(moa: Moa) -> None:
    known = documented("moa ask --estimate")
    # Of a strategy that may do without a call.
    told = json.loads(moa.run("ask", "--estimate", "--json", "--strategy", "vote", "Why?").text)
    assert printed(told, known) == known


def test_the_fields_of_statistics_are_those_of_the_page_and_of_usage(moa: Moa) -> None:
    known = documented("moa history stats") | {f"models[].{name}" for name in documented("Usage")}
    assert printed(json.loads(moa.run("history", "stats", "--json").text), known) == known


def test_the_fields_of_a_batch_are_those_of_the_page(moa: Moa) -> None:
    assert moa.run("batch", "prompts.jsonl", "out.jsonl", "--proposals", "-y").code == 0
    line = json.loads((moa.folder / "out.jsonl").read_text("utf-8").splitlines()[0])
    own = {"prompt", "answer"}
    assert line.keys() - own == documented("moa batch") - SOMETIMES


def test_a_line_of_a_batch_that_failed_has_the_other_fields(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.always("*", Reply(text="yes"))
        upstream.always("a", Reply(status=400))
        moa = machine(tmp_path / "home", upstream.url)
        for name, reference in (("lost", "openai:a,openai:b"), ("error", "openai:a")):
            (moa.folder / "in.jsonl").write_text('{"prompt": "x", "reply": "mine"}', "utf-8")
            models = ("-m", reference, "-a", "openai:b")
            moa.run("batch", "in.jsonl", f"{name}.jsonl", *models, "-y")
            line = json.loads((moa.folder / f"{name}.jsonl").read_text("utf-8"))
            assert line["input"] == {"reply": "mine"}
            assert name in line


def test_the_fields_of_blind_choices_are_those_of_the_code() -> None:
    row = LeaderboardRow(arm="mixture", profile="p", settings="s", wins=1, points=[1.0, 0.0])
    assert row.to_dict().keys() == documented("moa compare")


def test_the_fields_of_choices_and_their_judges_are_those_of_the_page(moa: Moa) -> None:
    arms = [Contender(arm, "p", "s", Usage(), 1.0) for arm in ("mixture", "single:a")]
    texts = ComparedTexts("why?", ("so", "for that"), (("user", "first"),))
    made = Comparison(1.0, tuple(arms), 0, texts=texts, number=1)
    listed = documented("moa compare list")
    assert printed(choice_to_dict(made, texts=False), listed) == listed
    shown = listed | documented("moa compare show")
    assert printed(choice_to_dict(made, texts=True), shown) == shown
    judged = agreement_of("judge", decided_pairs([made]), ())
    assert judged.to_dict().keys() == documented("moa compare judge")
    rating = ("bench", "judge", "runs/mine", "--rubric", "good?", "--judge", "openai:a", "-y")
    assert "Traceback" not in moa.run(*rating).err
    told = json.loads(moa.run("bench", "agreement", "runs/mine", "--json").out)
    assert told.keys() == documented("moa bench agreement")
