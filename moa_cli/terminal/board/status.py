"""The status line: the activity of a turn, its time and cost, and what keys do.

It is the last row of the live region, from the start of a turn to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.money import usd
from moa_cli.core.text import plural
from moa_cli.terminal.board.view import MARKS, CallView, State, TurnView
from moa_cli.terminal.line import LONGEST_NAME, Line, plain
from moa_cli.terminal.plain import Hint
from moa_cli.terminal.progress import duration
from moa_cli.terminal.table import cell_len

# Models pause between tokens. A longer silence than this is shown.
_SILENCE_SECONDS = 5.0
_NOTHING_COMES = "no token for"
# Shorter forms of the hints of a `Stopper`.
_FEWER_WORDS = {"write the reply now": "enough", "skip the report": "skip"}
# Priorities of the parts. If there is no room for all parts, those with the lowest priorities are
# left out first.
_ZOOM = -1
_TOKENS, _RATE, _COST, _LONG_HEAD, _READING, _LONG_HINT = range(6)
_SECONDS, _HEAD, _LONG_TROUBLE, _HINT, _TROUBLE, _ALWAYS = range(6, 12)


@dataclass
class _StatusPart:
    """A part of the status line; without a text, it is not shown.

    keep: its priority. shorter: shorter texts that are tried before it is left out, the longest
    first, each with its priority.
    """

    text: str
    style: str
    keep: int
    shorter: tuple[tuple[str, int], ...] = ()


@dataclass
class _Activity:
    """The present activity of a turn.

    heads: descriptions of it, each shorter than the one before. calls: the calls whose figures are
    shown. reading, trouble: texts after the figures.
    """

    state: State
    heads: tuple[str, ...]
    calls: Sequence[CallView] = ()
    reading: str = ""
    trouble: str = ""


class TurnStatus:
    """The state of a turn for the screen, and its status line.

    Several sinks may share an instance. Each of them passes its events to `take`, which counts each
    event only once. hint: returns what a key does at this moment. reasoning: show the reasoning of
    models.
    """

    def __init__(self, hint: Hint = lambda: "", *, reasoning: bool = False) -> None:
        self.view = TurnView(reasoning=reasoning)
        self.hint = hint
        self._began = 0.0
        self._last: Event | None = None

    def take(self, event: Event) -> None:
        """Take the next event, unless another sink has done so."""
        if event is self._last:
            return
        self._last = event
        if isinstance(event, events.TurnStarted):
            self._began = asyncio.get_running_loop().time() - event.at
        self.view.apply(event)

    def now(self) -> float:
        """Seconds since the turn began."""
        return asyncio.get_running_loop().time() - self._began

    def line(self, width: int) -> Line:
        """The line for this moment, at most `width` cells wide."""
        return status_line(self.view, self.now(), width, self.hint())

    def title(self) -> str:
        """The present activity, without figures, which would change all the time."""
        return _activity(self.view, 0.0).heads[0]


def status_line(view: TurnView, now: float, width: int, hint: str = "", zoom: str = "") -> Line:
    """The status line for `view`, at most `width` cells wide. If there is no room for all parts,
    the least important ones are left out. hint, zoom: what two keys do."""
    activity = _activity(view, now)
    mark, style = MARKS[activity.state]
    longest, *shorter = activity.heads
    keeps = [_LONG_HEAD, _HEAD, _ALWAYS][-len(activity.heads) :]
    trouble = plain(activity.trouble)
    short = trouble.replace(_NOTHING_COMES, "silent")
    parts = [
        _StatusPart(longest, "bold", keeps[0], tuple(zip(shorter, keeps[1:], strict=True))),
        _StatusPart(elapsed(now), "dim", _SECONDS),
        *_figures(activity, now),
        _StatusPart(_cost(view), "dim", _COST),
        _StatusPart(activity.reading, "dim", _READING),
        _StatusPart(trouble, "yellow", _LONG_TROUBLE, ((short, _TROUBLE),)),
        _StatusPart(hint, "dim", _LONG_HINT, ((_shorter(hint), _HINT),)),
        _StatusPart(zoom, "dim", _ZOOM),
    ]
    parts = [part for part in parts if part.text]
    free = width - cell_len(mark) - 1
    while len(parts) > 1 and _cells(parts) > free:
        least = min(parts, key=lambda part: part.keep)
        if least.shorter:
            (least.text, least.keep), *rest = least.shorter
            least.shorter = tuple(rest)
        elif least.keep == _ALWAYS:
            break
        else:
            parts.remove(least)
    line = Line((mark, style), " ")
    for number, part in enumerate(parts):
        line.append(" · " if number else "", "dim").append(part.text, part.style)
    return line.cut(width)


def _shorter(hint: str) -> str:
    key, _, words = hint.partition(": ")
    return f"{key}: {_FEWER_WORDS.get(words, words)}" if words else hint


def _cells(parts: Iterable[_StatusPart]) -> int:
    return sum(cell_len(part.text) + 3 for part in parts) - 3


def elapsed(seconds: float) -> str:
    """`4.2 s`, `42 s`, `4:07`, `1:04:07`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    return duration(int(seconds + 0.05))


def _activity(view: TurnView, now: float) -> _Activity:
    if view.phase == "replying" and view.aggregator is not None:
        return _replying(view.aggregator, view.references, now)
    calls = view.proposers
    if not calls:
        # No layer is running: before the first, between two, or after the last.
        return _Activity("waiting", (f"{view.name}: done" if view.layer else "preparing",))
    running = [call for call in calls if call.ended is None]
    ended = len(calls) - len(running)
    rounds = f" of {view.rounds}" if view.rounds > 1 and not view.purposes.get(view.layer) else ""
    count = f"{ended} of {len(calls)}"
    head = f"{view.name}{rounds}: {count}"
    return _Activity(
        _most_alive(running) if running else "done",
        (f"{head} answered", head, f"{view.name}: {count}"),
        calls,
        reading=f"waiting for {_name(running[0])}" if len(running) == 1 < len(calls) else "",
        trouble=_trouble_of_layer(running, now),
    )


def _most_alive(calls: Sequence[CallView]) -> State:
    states = {call.state for call in calls}
    order: tuple[State, ...] = ("streaming", "thinking", "retrying", "queued")
    return next((state for state in order if state in states), "waiting")


def _trouble_of_layer(running: Sequence[CallView], now: float) -> str:
    """The reason why a layer does not go on; "" if it does."""
    queued = sum(call.state == "queued" for call in running)
    if queued:
        return f"{queued} not sent yet"
    again = [call.resumes_in(now) for call in running if call.state == "retrying"]
    if again and len(again) == len(running):
        return f"again in {min(again):.0f} s"
    silence = min((call.silence(now) for call in running), default=0.0)
    return f"{_NOTHING_COMES} {elapsed(silence)}" if silence >= _SILENCE_SECONDS else ""


def _replying(call: CallView, references: int, now: float) -> _Activity:
    name = _name(call)
    doing = {"streaming": "writing", "retrying": "", "queued": ""}.get(call.state, call.state)
    activity = _Activity(call.state, (f"{name}  {doing}", name) if doing else (name,), [call])
    if call.state == "retrying":
        activity.trouble = f"again in {call.resumes_in(now):.0f} s: {call.why}"
    elif call.state == "queued":
        activity.trouble = call.note
    elif call.state == "waiting":
        activity.reading = f"reading {plural(references, 'proposal')}" if references else ""
        activity.trouble = call.note
    if call.ended is None and call.state in ("waiting", "thinking", "streaming"):
        silence = call.silence(now)
        if silence >= _SILENCE_SECONDS:
            activity.trouble = f"{_NOTHING_COMES} {elapsed(silence)}"
    return activity


def _name(call: CallView) -> str:
    return plain(call.name, LONGEST_NAME)


def _figures(activity: _Activity, now: float) -> list[_StatusPart]:
    """Tokens and tokens a second of the calls."""
    tokens = sum(call.tokens for call in activity.calls)
    about = "" if all(call.exact for call in activity.calls if call.tokens) else "~"
    rate = sum(call.rate(now) or 0.0 for call in activity.calls if call.ended is None)
    return [
        _StatusPart(f"{about}{tokens} tok" if tokens else "", "dim", _TOKENS),
        _StatusPart(f"{rate:.0f} tok/s" if rate else "", "dim", _RATE),
    ]


def _cost(view: TurnView) -> str:
    """The cost of the turn so far; "" if it is not known. `~` marks an estimate. `+ ?` after a sum
    means that calls of unknown price are missing from it."""
    running = [call for call in view.running() if call.price is not None]
    cost = view.used.cost + sum(call.running_cost() for call in running)
    if not cost:
        return ""
    about = "~" if running or view.used.estimated_calls else ""
    return f"{about}{usd(cost)}" + (" + ?" if view.used.unpriced_calls else "")
