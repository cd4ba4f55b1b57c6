"""Output of the commands of `moa compare`: answers, the leaderboard, and the results of pairs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from moa_cli.cli import wiring
from moa_cli.cli.options import look_of, time_ago
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.sanitize import sanitize
from moa_cli.core.text import plural
from moa_cli.terminal.tty import can_redraw, folded

if TYPE_CHECKING:
    from moa_cli.bench.scoring.means import Mean
    from moa_cli.bench.scoring.statistics import ConfidenceInterval
    from moa_cli.compare.leaderboard import LeaderboardRow
    from moa_cli.store.comparisons import Comparison, Contender
    from moa_cli.terminal.table import Column


def drawn(head: str, text: str, *, raw: bool) -> list[str]:
    """Lines of a head and an untrusted text. The text is rendered as Markdown, unless `raw` or the
    output is not a terminal that can show it."""
    safe = sanitize(text).strip()
    if raw or not can_redraw(sys.stdout):
        lines = safe.split("\n")
    else:
        from moa_cli.markdown.drawing import render_markdown
        from moa_cli.terminal.board.live import color_of, console_for, reply_width

        look = look_of(wiring.config())
        console = console_for(sys.stdout, look=look)
        width, color = reply_width(console.width), color_of(console)
        lines = render_markdown(safe, width=width, color=color, palette=look.palette)
    return [*([head] if head else []), *lines, ""]


def revealed(contenders: Sequence[Contender], winners: Sequence[int], width: int) -> list[str]:
    """A table that shows which arm gave the answer of each letter. winners: the places of the
    chosen ones."""
    from moa_cli.core.money import cost_text
    from moa_cli.terminal.table import Column, table_lines

    columns = [
        Column("", list(ascii_uppercase[: len(contenders)])),
        Column("arm", [contender.arm for contender in contenders], widest=40),
        Column("cost", [cost_text(contender.usage) for contender in contenders], right=True),
        Column("seconds", [f"{contender.seconds:.1f}" for contender in contenders], right=True),
        Column("", ["chosen" * (place in winners) for place in range(len(contenders))]),
        Column("profile", [contender.profile for contender in contenders]),
    ]
    return table_lines(columns, width)


def choices_since(since: str | None, *, texts: bool = False) -> list[Comparison]:
    """The kept choices, the oldest first. Prints a notice if some cannot be read.

    since: a span such as `7d`. texts: whether their prompts and answers are read too.
    """
    comparisons = open_store(to_read=True).comparisons
    found = comparisons.since(time_ago(since), texts=texts)
    if comparisons.unsound:
        say(f"{plural(comparisons.unsound, 'choice')} with invalid values left out")
    return found


def print_results(since: str | None, *, json: bool, pairs: bool) -> None:
    """Print the table over all choices that were kept. since: a span such as `7d`."""
    from moa_cli.compare.leaderboard import leaderboard, with_pairs

    made = choices_since(since)
    found = leaderboard(made)
    if json or pairs:
        found = with_pairs(found, made)
    if json:
        print_json([standing.to_dict() for standing in found])
    elif found:
        print_lines(leaderboard_lines(found, output_width()))
        if pairs:
            print_lines(_pair_lines(found, output_width()))
    else:
        say("there are no choices yet")


def leaderboard_lines(found: Sequence[LeaderboardRow], width: int) -> list[str]:
    """The leaderboard as a table. width: in cells."""
    from moa_cli.terminal.table import Column, table_lines

    names = _profile_names(found)
    seconds = [f"{row.seconds / row.compared:.1f}" for row in found]
    columns = [
        Column("arm", [row.arm for row in found], widest=40),
        Column("compared", [f"{row.compared:,}" for row in found], right=True, spare=1),
        Column("wins", [f"{row.wins:,}" for row in found], right=True),
        *_seldom("shared", [row.shared for row in found]),
        Column("ties", [f"{row.ties:,}" for row in found], right=True, spare=2),
        *_seldom("none good", [row.none_good for row in found]),
        Column("win rate", [_rate(row.win_rate) for row in found], right=True),
        Column("cost/win", [_cost(row) for row in found], right=True),
        Column("s/answer", seconds, right=True, spare=3),
        Column("profile", names),
    ]
    return table_lines(columns, width)


def _seldom(head: str, counts: Sequence[int]) -> Iterator[Column]:
    """A column that is left out if all its numbers are 0."""
    from moa_cli.terminal.table import Column

    if any(counts):
        yield Column(head, [f"{count:,}" for count in counts], right=True, spare=4)


def _profile_names(found: Sequence[LeaderboardRow]) -> list[str]:
    """The profiles' names, with the hash of the settings if a profile has had several."""
    same = Counter((row.arm, row.profile) for row in found)
    return [
        f"{row.profile} #{row.settings}" if same[row.arm, row.profile] > 1 else row.profile
        for row in found
    ]


def _pair_lines(found: Sequence[LeaderboardRow], width: int) -> Iterator[str]:
    """A table of intervals and strengths, and a table of the results of each pair."""
    from moa_cli.terminal.table import Column, table_lines

    profiles = dict(zip((row.name for row in found), _profile_names(found), strict=True))
    yield ""
    intervals = [row.interval for row in found]
    strengths = [row.strength for row in found]
    yield from table_lines(
        [
            Column("arm", [row.arm for row in found], widest=40),
            Column("95 %", [_between(interval) for interval in intervals], right=True),
            Column(
                "by chance",
                [f"{100 * (row.chance or 0.0):.0f}%" for row in found],
                right=True,
                spare=1,
            ),
            Column(
                "strength", [f"{100 * known.value:.0f}%" if known else "–" for known in strengths]
            ),
            Column(
                "95 %",
                [_between(known.interval if known else None) for known in strengths],
                right=True,
                spare=2,
            ),
            Column("profile", list(profiles.values())),
        ],
        width,
    )
    yield folded("strength: how likely it beats an average arm (Bradley-Terry)", sys.stdout)
    # Each pair once, with the arm first that is higher in the leaderboard.
    places = {row.name: place for place, row in enumerate(found)}
    pairs = [
        (row, pair)
        for row in found
        for pair in row.against
        if places[row.name] < places[pair.other]
    ]
    yield ""
    yield from table_lines(
        [
            Column("arm", [row.arm for row, _ in pairs], widest=40),
            Column("against", [pair.other[0] for _, pair in pairs], widest=40),
            Column("wins", [f"{pair.wins:,}" for _, pair in pairs], right=True),
            Column("losses", [f"{pair.losses:,}" for _, pair in pairs], right=True),
            Column("ties", [f"{pair.ties:,}" for _, pair in pairs], right=True, spare=1),
            Column("p", [f"{pair.p:.3f}" for _, pair in pairs], right=True, spare=2),
            Column(
                "profiles",
                [f"{profiles[row.name]}, {profiles[pair.other]}" for row, pair in pairs],
            ),
        ],
        width,
    )


def _between(interval: ConfidenceInterval | None) -> str:
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}%" if interval else "–"


def _rate(rate: Mean) -> str:
    value = f"{100 * (rate.value or 0.0):.0f}%"
    # An error of 0 is not shown: equal outcomes in a few choices do not mean that there is no
    # spread.
    return f"{value} ± {100 * rate.standard_error:.0f}" if rate.standard_error else value


def _cost(row: LeaderboardRow) -> str:
    from moa_cli.core.money import usd

    if row.usage.unpriced_calls:
        return "?"
    return "–" if row.cost_per_win is None else usd(row.cost_per_win)
