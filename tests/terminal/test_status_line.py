"""The status line: at every width it fits in one row, and the least important parts go first; it
tells what is waited for, what it costs so far, and that nothing comes; and it stays while a reply
is written."""

from __future__ import annotations

import asyncio
import io
import re

import pyte
import pytest
from rich.cells import cell_len

from moa_cli.core.conversation import Failure, Proposal, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Event,
    Hedged,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Queued,
    Retrying,
    TurnFailed,
    TurnStarted,
)
from moa_cli.core.money import Price, PriceTier
from moa_cli.terminal.board.live import LiveReply, MarkdownReply, TextReply
from moa_cli.terminal.board.status import TurnStatus, status_line
from moa_cli.terminal.board.view import TurnView
from tests.terminal.test_frames import PLACE_KEPT

REPLY_NOW = "Ctrl-C: write the reply now"
COLUMNS, ROWS = 60, 20
PRICE = Price(prompt=1.0, completion=3.0)
BUSY = Failure("RateLimited", "too many requests (429)")
HOSTILE = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\x1b[?7l\x07\x00[/INST] [bold]x\u202e"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def layer(*names: str, number: int = 1, at: float = 0.0) -> LayerStarted:
    """A layer begins."""
    callers = tuple(Caller(name=name, model=f"lab:{name}") for name in names)
    return LayerStarted(at=at, layer=number, proposers=callers)


def told(*happened: Event, rounds: int = 1) -> TurnView:
    """What a screen knows after these events."""
    view = TurnView()
    for event in (TurnStarted(profile="p", prompt="?", rounds=rounds, aggregator="a"), *happened):
        view.apply(event)
    return view


def line(view: TurnView, now: float, width: int = 200, hint: str = "") -> str:
    """The status line's text."""
    return status_line(view, now, width, hint).plain


def answered(index: int, at: float, usage: Usage) -> ProposerFinished:
    """A proposer has answered."""
    return ProposerFinished(at=at, layer=1, index=index, proposal=proposal(usage))


def proposal(usage: Usage, error: Failure | None = None) -> Proposal:
    """What came of a call."""
    return Proposal(1, 0, "name", "model", "text", usage=usage, error=error)


def wrote(index: int, at: float) -> ProposerDelta:
    """A piece of an answer."""
    return ProposerDelta(at=at, layer=1, index=index, text="word ")


def test_in_each_state_it_says_what_is_done() -> None:
    two = layer("a", "b")
    reply = AggregatorStarted(at=3.0, name="agg", model="lab:agg", references=2)
    wait = Retrying(at=1.0, layer=1, index=0, model="m", attempt=2, delay=4.0, error=BUSY)
    again = Retrying(at=4.0, layer=2, index=None, model="m", attempt=2, delay=8.0, error=BUSY)
    hedged = Hedged(at=6.0, layer=2, index=None, model="agg", seconds=3.0)
    queued = [Queued(layer=1, index=n, model="m", reason="behind a limit") for n in (0, 1)]
    assert line(told(), 1.0) == "· preparing · 1.0 s"
    assert line(told(two), 2.0) == "· round 1: 0 of 2 answered · 2.0 s"
    assert line(told(two, *queued), 2.0).endswith(" · 2 not sent yet")
    assert line(told(layer("a"), wait), 2.0).startswith("↻ round 1: 0 of 1 answered")
    assert line(told(layer("a"), wait), 2.0).endswith(" · again in 3 s")
    assert line(told(two, LayerFinished(layer=1, answered=2, asked=2, seconds=2.0)), 2.0)
    assert line(told(two, reply), 4.0) == "· agg  waiting · 4.0 s · reading 2 proposals"
    assert line(told(two, reply, again), 5.0).endswith(" · again in 7 s: too many requests (429)")
    assert "silent for 3 s: asked twice" in line(told(two, reply, hedged), 6.5)


def test_between_two_layers_it_says_so() -> None:
    view = told(layer("a"), wrote(0, 0.5), answered(0, 1.0, Usage(calls=1)), rounds=2)
    view.take_out(1)
    assert line(view, 1.2) == "· round 1: done · 1.2 s"
    view.apply(layer("a", number=2, at=1.3))
    assert line(view, 1.4).startswith("· round 2 of 2: 0 of 1 answered")


def test_nothing_coming_is_said_and_no_longer_once_it_comes() -> None:
    view = told(layer("a", "b"), wrote(0, 1.0), wrote(0, 2.0))
    assert "no token" not in line(view, 6.0)
    assert line(view, 14.0).endswith(" · no token for 12 s")
    view.apply(wrote(1, 14.1))
    assert "no token" not in line(view, 14.2)
    view.apply(AggregatorStarted(at=20.0, name="agg", model="agg", references=1))
    assert "no token" not in line(view, 24.0)
    assert line(view, 145.0).endswith(" · no token for 2:05")
    view.apply(AggregatorDelta(at=145.0, text="It"))
    assert line(view, 150.5).startswith("▸ agg  writing · 2:30")
    assert line(view, 150.5).endswith(" · no token for 5.5 s")


def test_the_cost_so_far_is_marked_where_it_is_estimated_or_lacks_a_part() -> None:
    began = ProposerStarted(layer=1, index=0, prompt_tokens=1_000_000, price=PRICE)
    view = told(layer("a", "b"), began)
    assert " · ~$1.00" in line(view, 1.0)
    view.apply(answered(0, 2.0, Usage(prompt_tokens=10, calls=1, cost=1.25)))
    assert " · $1.25" in line(view, 3.0)
    view.apply(answered(1, 3.0, Usage(prompt_tokens=10, calls=1, unpriced_calls=1)))
    assert " · $1.25 + ?" in line(view, 3.0)


def test_the_cost_so_far_of_a_long_prompt_is_at_the_price_of_long_prompts() -> None:
    tiered = Price(prompt=1.0, completion=3.0, tiers=(PriceTier(200_000, 2.0, 6.0),))
    began = ProposerStarted(layer=1, index=0, prompt_tokens=1_000_000, price=tiered)
    assert " · ~$2.00" in line(told(layer("a"), began), 1.0)


def test_what_was_withdrawn_still_costs() -> None:
    began = ProposerStarted(layer=1, index=0, prompt_tokens=1_000_000, price=PRICE)
    again = Retrying(
        at=2.0, layer=1, index=0, model="a", attempt=2, delay=1.0, error=BUSY, withdrawn=True
    )
    assert " · ~$2.00" in line(told(layer("a"), began, wrote(0, 1.0), again), 2.5)


def test_of_a_lost_call_the_cost_counts() -> None:
    lost = proposal(Usage(calls=1, cost=0.5), BUSY)
    view = told(layer("a", "b"), ProposerFailed(at=1.0, layer=1, index=0, proposal=lost))
    assert " · $0.50" in line(view, 2.0)


@pytest.mark.parametrize("width", range(1, 130))
def test_at_every_width_it_is_one_row_and_the_least_important_goes_first(width: int) -> None:
    began = ProposerStarted(layer=1, index=0, prompt_tokens=1_000_000, price=PRICE)
    events: list[Event] = [layer("a", "b"), began, wrote(0, 1.0), wrote(0, 2.0), wrote(1, 2.0)]
    text = line(told(*events, rounds=2), 9.0, width, REPLY_NOW)
    assert cell_len(text) <= width
    assert "\n" not in text
    parts = ["round 1", ("enough", "write the reply now"), "9.0 s", "~$1.00", "tok/s", "~3 tok"]
    there = [
        any(words in text for words in ((part,) if isinstance(part, str) else part))
        for part in parts
    ]
    if width >= 30:
        assert there == sorted(there, reverse=True)
    if width >= 56:
        assert there[1]


@pytest.mark.parametrize("width", [1, 2, 10, 40, 80, 200])
@pytest.mark.parametrize("name", [HOSTILE, "漢字" * 40, "a\nb\tc", "\u202eabc", "👨‍👩‍👧" * 20])
def test_names_and_errors_keep_to_the_row_and_are_harmless(name: str, width: int) -> None:
    events: list[Event] = [
        AggregatorStarted(at=1.0, name=name, model=name, references=1),
        Retrying(
            at=2.0,
            layer=2,
            index=None,
            model=name,
            attempt=2,
            delay=1.0,
            error=Failure("ProviderError", name),
        ),
    ]
    view = told(*events)
    text = line(view, 2.0, width, "Esc: cancel")
    assert cell_len(text) <= width
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", text)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def frames(reply: type[LiveReply], *pieces: str, silence: float = 0.0) -> tuple[str, list[str]]:
    """What a terminal is sent while a reply comes, and the rows that stay. silence: seconds before
    its end."""
    out = _Terminal()

    async def show() -> None:
        sink = reply(
            out, apart=True, status=TurnStatus(lambda: "Esc: stop"), size=lambda: (COLUMNS, ROWS)
        )
        sink.handle(TurnStarted(profile="p", prompt="?", rounds=0, aggregator="agg"))
        sink.handle(AggregatorStarted(name="agg", model="agg", references=0))
        for piece in pieces:
            sink.handle(AggregatorDelta(text=piece))
            await asyncio.sleep(0.15)
        await asyncio.sleep(silence)
        sink.handle(AggregatorFinished(model="agg", text="".join(pieces)))
        sink.close()

    asyncio.run(show())
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
    pyte.Stream(screen).feed(out.getvalue())
    top = screen.history.top
    rows = ["".join(row[x].data for x in range(COLUMNS)).rstrip() for row in top]
    rows += [row.rstrip() for row in screen.display]
    while rows and not rows[-1]:
        rows.pop()
    return _SEQUENCE.sub("", re.sub(PLACE_KEPT, "", out.getvalue())), rows


@pytest.mark.parametrize("reply", [MarkdownReply, TextReply])
def test_it_stays_below_a_reply_and_leaves_nothing_behind(reply: type[LiveReply]) -> None:
    sent, rows = frames(reply, "One.\n\n", "Two ", "three.\n", "\n")
    assert sent.count("▸ agg  writing") >= 2
    assert sent.count("Esc: stop") >= 2
    assert rows == ["", "One.", "", "Two three."]


@pytest.mark.parametrize("reply", [MarkdownReply, TextReply])
def test_where_no_board_is_shown_it_is_there_from_the_start(reply: type[LiveReply]) -> None:
    out = _Terminal()

    async def show() -> None:
        status = TurnStatus(lambda: "Esc: cancel")
        sink = reply(out, status=status, whole_turn=True, size=lambda: (COLUMNS, ROWS))
        sink.handle(TurnStarted(profile="p", prompt="?", rounds=1, aggregator="agg"))
        sink.handle(layer("a", "b"))
        await asyncio.sleep(0.15)
        # What follows is for others to tell, on a terminal without a trace of it.
        sink.handle(TurnFailed(error=BUSY, causes=(), usage=Usage(), seconds=0.2))
        sent = len(out.getvalue())
        await asyncio.sleep(0.15)
        assert len(out.getvalue()) == sent
        sink.close()

    asyncio.run(show())
    assert "round 1: 0 of 2 answered" in out.getvalue()
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.Stream(screen).feed(out.getvalue())
    assert not "".join(screen.display).strip()


def test_plain_text_stays_as_it_is_each_line_once() -> None:
    long = "word " * 40
    text = f"# *one*\n\n\n  two\tthree\n{long}\n漢字かな{'漢' * 90}\nlast\n\n"
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    _, rows = frames(TextReply, *pieces)
    joined = "".join(f"{row:<{COLUMNS}}" for row in rows)
    assert rows[1:5] == ["# *one*", "", "", "  two   three"]
    assert re.sub(r"\s+", " ", joined).count("word") == 40
    assert joined.count("漢") == 91
    assert rows[-1] == "last"


def test_of_hostile_plain_text_nothing_acts_on_the_terminal() -> None:
    sent, _ = frames(TextReply, HOSTILE, "end")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", sent)
