"""`/report` in a chat: where the last proposals disagree, by one call; and `/why` with it."""

from __future__ import annotations

import json
import re

from tests.support.command import Moa
from tests.support.talk import Talk, at_prompt
from tests.support.upstream import Reply, Upstream

RAIN = "Rain falls when the drops in a cloud grow too heavy for the air."
SNOW = "Snow is made of ice crystals which have grown in a cloud."
TOLD = {
    "points": [
        {"kind": "consensus", "text": "Drops fall as rain when too heavy", "responses": [1, 2]},
        {"kind": "unique", "text": "Ice crystals grow to snow in a cloud", "responses": [2]},
        {"kind": "blind_spot", "text": "Nobody says what hail is.", "responses": []},
    ],
    "groups": [[1], [2]],
}
SHOWN = """\
report on the proposals:

Consensus:
- Drops fall as rain when too heavy (lab:a, lab:b)

Said by one alone:
- Ice crystals grow to snow in a cloud (lab:b)

Blind spots:
- Nobody says what hail is.

Agreement: 0% of the pairs of answers take the same of 2 positions
- lab:a
- lab:b"""


def answered(talk: Talk) -> None:
    """A turn is over; the aggregator, who is the judge, then gives a report."""
    talk.upstream.enqueue("a", Reply(text=RAIN))
    talk.upstream.enqueue("b", Reply(text=SNOW))
    talk.upstream.enqueue("agg", Reply(text=f"{RAIN} {SNOW}"), Reply(text=json.dumps(TOLD)))
    talk.do("Why?")


def test_a_report_is_made_by_one_call_and_kept(talk: Talk) -> None:
    answered(talk)
    assert SHOWN in talk.do("/report")
    assert len(talk.upstream.chats()) == 4
    assert talk.do("/report") == SHOWN
    assert len(talk.upstream.chats()) == 4
    last = talk.session.last
    assert last is not None
    assert (last.reply, last.usage.calls) == (f"{RAIN} {SNOW}", 4)
    assert talk.session.conversation.turns[-1] is last
    # What is said next is sent without it.
    talk.do("And hail?")
    assert [len(message) for message in talk.sent("a")] == [1, 3]


def test_with_the_setting_a_report_follows_each_reply(talk: Talk) -> None:
    talk.upstream.enqueue("agg", Reply(text="rain"), Reply(text=json.dumps(TOLD)))
    assert SHOWN in talk.do("/set report true", "Why?")


def test_a_merged_turn_keeps_its_report(talk: Talk) -> None:
    answered(talk)
    talk.do("/report")
    talk.upstream.enqueue("agg", Reply(text="another reply"))
    talk.do("/remerge")
    assert talk.do("/report") == SHOWN
    assert [len(talk.upstream.chats(model)) for model in ("a", "b", "agg")] == [1, 1, 3]


def test_why_names_those_who_hold_a_passage(talk: Talk) -> None:
    answered(talk)
    assert "held by" not in talk.do("/why")
    talk.do("/report")
    said = talk.do("/why")
    text = " ".join(said.split())
    assert "held by" in text
    assert re.search(r"Rain falls .* lab:a 100 lab:a, ", text)
    assert re.search(r"Snow is made .* lab:b 100 lab:b ", text)


def test_without_two_proposals_there_is_nothing_to_compare(talk: Talk) -> None:
    assert talk.do("/report") == "moa: there are no turns yet"
    talk.do("/set rounds 0", "hi")
    assert talk.do("/report") == "moa: there are fewer than two proposals to compare"


def test_a_report_that_fails_is_told_and_can_be_asked_for_again(talk: Talk) -> None:
    talk.do("Why?")
    talk.upstream.enqueue("agg", Reply(text="no"), Reply(text=json.dumps(TOLD)))
    assert "there is no report: judge (report): its answer cannot be read" in talk.do("/report")
    assert SHOWN in talk.do("/report")


def test_at_a_terminal_esc_ends_the_report_and_it_is_kept_when_made(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", "b", judge="lab:judge")
    upstream.always("*", Reply(text="It rains."))
    upstream.enqueue("judge", Reply(stall_after=0), Reply(text=json.dumps(TOLD)))
    with moa.terminal("chat", rows=40) as terminal:
        at_prompt(terminal)
        terminal.send("hi\r")
        terminal.wait_for("It rains.")
        at_prompt(terminal)
        terminal.send("/report\r")
        terminal.wait_for("Esc: skip the report")
        terminal.send("\x1b")
        terminal.wait_for("there is no report: judge (report): not waited for")
        at_prompt(terminal)
        terminal.send("/report\r")
        terminal.wait_for("Blind spots:")
        at_prompt(terminal)
        terminal.send("/exit\r")
        assert terminal.wait() == 0
    [turn] = json.loads(moa.run("history", "show", "--json").out)["turns"]
    assert (turn["reply"], turn["status"], turn["lost"]) == ("It rains.", "finished", [])
    assert turn["report"]["groups"] == [["lab:a"], ["lab:b"]]
    assert [review["purpose"] for review in turn["reviews"]] == ["report", "report"]
    assert turn["usage"]["calls"] == 5
    # Another process knows it.
    with moa.terminal("chat", "-c", rows=40) as terminal:
        at_prompt(terminal)
        terminal.send("/report\r")
        terminal.wait_for("Blind spots:")
    assert len(upstream.chats("judge")) == 2
