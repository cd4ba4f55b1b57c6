"""`moa compare`: your own prompts, answers side by side and blind."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import BUDGET, FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.options import (
    ARMS_HELP,
    Best,
    Live,
    Plain,
    Save,
    arm_names,
    look_of,
    max_cost_option,
    split_names,
    takes_profile,
    time_ago,
    typed_or,
)
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.cli.saving import open_books, open_store
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.money import cost_text, usd
from moa_cli.core.outcomes import cut_lines, cut_of
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.core.text_files import holds_bytes
from moa_cli.profile import Overrides, Profile
from moa_cli.terminal.tty import can_redraw

if TYPE_CHECKING:
    from moa_cli.bench.data.items import Item
    from moa_cli.bench.run.arms import Arm
    from moa_cli.bench.scoring.means import Mean
    from moa_cli.bench.scoring.statistics import ConfidenceInterval
    from moa_cli.compare.contest import ArmAnswer
    from moa_cli.compare.leaderboard import LeaderboardRow
    from moa_cli.core.conversation import Turn
    from moa_cli.engine import Limits
    from moa_cli.store.accounts import Records
    from moa_cli.store.comparisons import Comparison

# T, s and q are other keys.
_MOST_ARMS = ascii_lowercase.index("q")
_TIE, _SKIP, _LEAVE = "t", "s", ("q", "\x04")


@takes_profile
def compare(
    profile: Profile,
    concurrency: int | None,
    *,
    prompts: Annotated[list[str] | None, Argument(metavar="PROMPT", help="What to ask.")] = None,
    file: Annotated[
        Path | None,
        Option(
            "-f",
            "--file",
            metavar="FILE",
            help="Prompts, one a line, or (.jsonl) lines of {prompt or messages}.",
        ),
    ] = None,
    arms: Annotated[
        str,
        Option(
            metavar="NAMES",
            help=f"What is compared, by commas: {ARMS_HELP}.",
        ),
    ] = "mixture,single",
    best: Best = None,
    profiles: Annotated[
        list[str] | None,
        Option(metavar="NAMES", help="Compare these profiles, by commas, and no arms of one."),
    ] = None,
    max_cost: Annotated[float | None, max_cost_option("Most that all prompts may cost.")] = None,
    seed: Annotated[
        int | None, Option(metavar="N", help="Makes the order of the answers repeat.")
    ] = None,
    results: Annotated[
        bool, Option("--results", help="Print what was chosen so far, and ask nothing.")
    ] = False,
    json: Annotated[bool, Option("--json", help="With --results: print a JSON array.")] = False,
    pairs: Annotated[
        bool,
        Option("--pairs", help="With --results: also print intervals, strengths, and each pair."),
    ] = False,
    since: Annotated[
        str | None, Option(metavar="SPAN", help="With --results: not older than, such as 7d.")
    ] = None,
    save: Save = None,
    plain: Plain = None,
    live: Live = None,
) -> None:
    """Choose between answers without knowing whose they are."""
    if results:
        if prompts or file is not None:
            raise UsageError("--results takes no prompts", hint="leave them out")
        _print_results(since, json=json, pairs=pairs)
        return
    if json or pairs or since is not None:
        raise UsageError("--pairs, --json and --since belong to --results")
    from moa_cli.engine import Budget, Cap
    from moa_cli.store import accounts
    from moa_cli.store.spending import CallRecorder

    kinds = arm_names(arms)
    names = split_names(profiles, "--profiles", "profile")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "choosing an answer needs a terminal", hint="--results prints what was chosen"
        )
    compared = _arms(profile, kinds, best, names)
    items = _items(prompts or [], file)
    books = open_books(save=save)
    models = (model for arm in compared for model in arm.profile.models())
    for notice in wiring.providers().key_notices(models):
        say(notice)
    settings = wiring.config()
    budgets = accounts.budgets(settings, books.spending) + wiring.session_budget("shared")
    if max_cost is not None:
        budgets += (Budget(Cap("--max-cost", "usd", max_cost), "shared"),)
    ledger = CallRecorder(books.spending, say) if books.spending else None
    comparing = _Comparing(
        compared,
        books,
        wiring.limits(concurrency, budgets, ledger),
        # Not for secrets: the order must only be unforeseen, and repeat with a seed.
        Random(seed),  # noqa: S311
        plain=typed_or(plain, settings.plain or settings.accessible),
        live=typed_or(live, settings.moves),
    )
    # Their names would tell which arms they are.
    say(f"{len(compared)} arms, shown blind; what you choose is{' not' * (not books.store)} kept")
    raise Exit(comparing.run(_asked() if items is None else items))


def _arms(
    profile: Profile, kinds: tuple[str, ...], best: str | None, names: tuple[str, ...] | None
) -> list[Arm]:
    """The arms of a profile, or the mixtures of the profiles of these names. Raises UsageError if
    they cannot be told apart, or are too few or too many."""
    from moa_cli.bench.run.arms import best_of, make_arms

    if names is None:
        arms = list(make_arms(profile, kinds, best_of(profile, best) if "self" in kinds else ""))
    elif any(origin.kind == "flag" for origin in profile.origins.values()):
        raise UsageError("--profiles: options that change a mixture are for one profile")
    else:
        named = [wiring.choose_profile(name, Overrides()) for name in names]
        arms = [arm for profile in named for arm in make_arms(profile, ("mixture",), "")]
    different = {(arm.name, arm.profile.name) for arm in arms}
    if len(different) < 2 or len(different) < len(arms):
        raise UsageError(
            "there must be at least two different arms",
            hint="--arms mixture,self,single, or --profiles a,b",
        )
    if len(arms) > _MOST_ARMS:
        raise UsageError(f"{len(arms)} arms are too many: {_MOST_ARMS} at most")
    return arms


def _items(prompts: Sequence[str], file: Path | None) -> list[Item] | None:
    """What is asked; None if it is to be typed."""
    from moa_cli.batch.prompts import check_no_table, is_json_name, read_prompts
    from moa_cli.bench.data.items import Item, read_file

    items = [Item(id="", turns=(prompt,)) for prompt in prompts if prompt.strip()]
    if file is not None:
        name = str(file)
        check_no_table(name, 'write it as lines of {"prompt": …} (.jsonl), or one prompt a line')
        items += read_prompts(read_file(file), name, lines=not is_json_name(name))
    if any(map(holds_bytes, prompts)):
        raise UsageError("a prompt is not UTF-8 text", hint="use a terminal that speaks UTF-8")
    if not items and prompts:
        raise UsageError("there is nothing to ask")
    return items or None


def _asked() -> Iterator[Item]:
    """What is typed, until Ctrl-D."""
    from moa_cli.bench.data.items import Item

    while True:
        sys.stdout.write("› ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stdout.write("\n")
            return
        if holds_bytes(line):
            say("that is not UTF-8 text, and was not asked")
        elif line.strip():
            yield Item(id="", turns=(line.strip(),))


@dataclass
class _Comparing:
    """The choices of one command.

    random: of the order in which answers are shown. plain: show answers as raw text. live: draw
    moving parts. chosen: so far. code: to exit with.
    """

    arms: list[Arm]
    books: Records
    limits: Limits
    random: Random
    plain: bool
    live: bool
    chosen: list[Comparison] = field(default_factory=list)
    code: int = 0

    def run(self, items: Iterator[Item] | Sequence[Item]) -> int:
        """Ask, show, let choose, tell, prompt after prompt; returns the exit code."""
        import asyncio

        try:
            for item in items:
                if not self._compare(item):
                    break
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            kept = " and kept" if self.books.store is not None else ""
            say(f"interrupted; {plural(len(self.chosen), 'choice')} made{kept}")
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        return self.code

    def _compare(self, item: Item) -> bool:
        """One prompt; whether there is to be another."""
        from moa_cli.terminal.tty import run_loop

        print_lines(["", *_drawn("", f"› {item.turns[0]}", raw=True)])
        answers = run_loop(self._answers(item))
        capped = next((answer.turn.error for answer in answers if answer.turn.capped), None)
        failed = [answer for answer in answers if answer.trouble is not None]
        there = [answer for answer in answers if answer.trouble is None]
        self.random.shuffle(there)
        if capped is not None:
            say(capped.message)
            self.code = BUDGET
            return False
        if len(there) < 2:
            print_lines(_revealed([], failed, None))
            say("fewer than two answers: this prompt is not counted")
            self.code = FAILED
            return True
        return self._choose(there, failed)

    async def _answers(self, item: Item) -> list[ArmAnswer]:
        from moa_cli.cli.bench.session import open_pool
        from moa_cli.compare.contest import answers
        from moa_cli.terminal.progress import Progress, progress_view
        from moa_cli.terminal.tty import cancel_on_termination, without_echo

        cancel_on_termination()
        async with aclosing(open_pool()) as clients:
            limiter = wiring.limiter(self.limits.concurrency)
            progress = Progress(total=len(self.arms), in_flight=lambda: limiter.in_flight)
            view = progress_view(sys.stderr, progress, live=self.live)

            def ended(turn: Turn) -> None:
                if turn.error is None and not turn.lost:
                    progress.done += 1
                else:
                    progress.failed += 1
                progress.spent += turn.usage
                view.changed()

            slots = limiter.slots(clients.providers.provider_of, 0)
            limits = replace(self.limits, slots=slots, reply_held=True)
            with without_echo(sys.stdout):
                view.start()
                try:
                    return await answers(self.arms, item, clients, limits, ended)
                finally:
                    view.close()

    def _choose(self, there: list[ArmAnswer], failed: list[ArmAnswer]) -> bool:
        from moa_cli.compare.leaderboard import leaderboard
        from moa_cli.terminal.tty import single_keys

        letters = ascii_lowercase[: len(there)]
        if failed:
            say(f"{plural(len(failed), 'arm')} failed, named after your choice")
        with single_keys() as key:
            for letter, answer in zip(letters, there, strict=True):
                lines = _drawn(f"── {letter.upper()} ──", answer.reply, raw=self.plain)
                if cut := cut_of(answer.turn):
                    lines += [f"(the reply was {cut})", ""]
                print_lines(lines)
            keys = "/".join(letters)
            sys.stdout.write(f"Which is best? [{keys}, t: tie, s: skip, q: quit] ")
            sys.stdout.flush()
            pressed = ""
            while pressed not in (*letters, _TIE, _SKIP, *_LEAVE):
                pressed = key().lower()
        sys.stdout.write(f"{pressed if pressed.isprintable() else ''}\n")
        if pressed in _LEAVE:
            return False
        winner = letters.index(pressed) if pressed in letters else None
        if pressed != _SKIP:
            self._keep(there, winner)
        print_lines(_revealed(there, failed, winner))
        if pressed != _SKIP:
            print_lines(["", *_leaderboard_lines(leaderboard(self.chosen), output_width(80))])
        return True

    def _keep(self, there: list[ArmAnswer], winner: int | None) -> None:
        from moa_cli.store.comparisons import Comparison

        contenders = tuple(answer.contender() for answer in there)
        comparison = Comparison(time.time(), contenders, winner)
        self.chosen.append(comparison)
        if self.books.store is None:
            return
        try:
            self.books.store.comparisons.add(comparison)
        except StoreError as error:
            say(f"this choice is not kept: {error.message}")
            self.books = replace(self.books, store=None)


def _drawn(head: str, text: str, *, raw: bool) -> list[str]:
    """A head, and the (untrusted) text under it, drawn as Markdown; as it is if `raw`, or where
    nothing can be drawn."""
    safe = sanitize(text).strip()
    if raw or not can_redraw(sys.stdout):
        lines = safe.split("\n")
    else:
        from moa_cli.markdown.drawing import render_markdown
        from moa_cli.terminal.live import color_of, console_for, reply_width

        look = look_of(wiring.config())
        console = console_for(sys.stdout, look=look)
        width, color = reply_width(console.width), color_of(console)
        lines = render_markdown(safe, width=width, color=color, palette=look.palette)
    return [*([head] if head else []), *lines, ""]


def _revealed(
    there: Sequence[ArmAnswer], failed: Sequence[ArmAnswer], winner: int | None
) -> list[str]:
    """Which arms gave the answers, in the order in which they were shown, and which gave none.

    winner: the place of the chosen one.
    """
    from moa_cli.terminal.table import Column, table_lines

    lines: list[str] = []
    if there:
        columns = [
            Column("", [chr(ord("A") + place) for place in range(len(there))]),
            Column("arm", [answer.arm.name for answer in there], widest=40),
            Column("cost", [cost_text(answer.turn.usage) for answer in there], right=True),
            Column("seconds", [f"{answer.turn.seconds:.1f}" for answer in there], right=True),
            Column("", ["chosen" if place == winner else "" for place in range(len(there))]),
            Column("profile", [answer.arm.profile.name for answer in there]),
        ]
        lines = table_lines(columns, output_width(80))
    # Only now: before the choice, the names of proposers would tell the arms.
    for answer in there:
        cuts = cut_lines(answer.turn)
        lines += [one_line(f"{answer.arm.name}: {cut}") for cut in cuts]
    for answer in failed:
        arm = answer.arm
        lines.append(one_line(f"{arm.name} ({arm.profile.name}) failed: {answer.trouble}"))
    return lines


def _print_results(since: str | None, *, json: bool, pairs: bool) -> None:
    """Print the table over all choices that were kept. since: a span such as `7d`."""
    from moa_cli.compare.leaderboard import leaderboard, with_pairs

    comparisons = open_store(to_read=True).comparisons
    made = comparisons.since(time_ago(since))
    found = leaderboard(made)
    if json or pairs:
        found = with_pairs(found, made)
    if comparisons.unsound:
        say(f"{plural(comparisons.unsound, 'choice')} with impossible values left out")
    if json:
        print_json([standing.to_dict() for standing in found])
    elif found:
        print_lines(_leaderboard_lines(found, output_width()))
        if pairs:
            print_lines(_pair_lines(found, output_width()))
    else:
        say("nothing was chosen yet")


def _leaderboard_lines(found: Sequence[LeaderboardRow], width: int) -> list[str]:
    """A table. width: in cells."""
    from moa_cli.terminal.table import Column, table_lines

    names = _profile_names(found)
    seconds = [f"{row.seconds / row.compared:.1f}" for row in found]
    columns = [
        Column("arm", [row.arm for row in found], widest=40),
        Column("compared", [f"{row.compared:,}" for row in found], right=True, spare=1),
        Column("wins", [f"{row.wins:,}" for row in found], right=True),
        Column("ties", [f"{row.ties:,}" for row in found], right=True, spare=2),
        Column("win rate", [_rate(row.win_rate) for row in found], right=True),
        Column("cost/win", [_cost(row) for row in found], right=True),
        Column("s/answer", seconds, right=True, spare=3),
        Column("profile", names),
    ]
    return table_lines(columns, width)


def _profile_names(found: Sequence[LeaderboardRow]) -> list[str]:
    """Only where one name has had several settings must they be told apart."""
    same = Counter((row.arm, row.profile) for row in found)
    return [
        f"{row.profile} #{row.settings}" if same[row.arm, row.profile] > 1 else row.profile
        for row in found
    ]


def _pair_lines(found: Sequence[LeaderboardRow], width: int) -> Iterator[str]:
    """How sure the win rates are, and who won against whom."""
    from moa_cli.terminal.table import Column, table_lines

    profiles = dict(zip((row.name for row in found), _profile_names(found), strict=True))
    yield ""
    intervals = [row.interval for row in found]
    strengths = [row.strength for row in found]
    yield from table_lines(
        [
            Column("arm", [row.arm for row in found], widest=40),
            Column("95 %", [_between(interval) for interval in intervals], right=True),
            Column("by chance", [f"{100 * (row.chance or 0.0):.0f}%" for row in found], right=True),
            Column(
                "strength", [f"{100 * known.value:.0f}%" if known else "–" for known in strengths]
            ),
            Column(
                "95 %",
                [_between(known.interval if known else None) for known in strengths],
                right=True,
            ),
            Column("profile", list(profiles.values())),
        ],
        width,
    )
    yield "strength: how likely it beats an average arm (Bradley-Terry)"
    # Each pair once, from the side of the arm that stands higher.
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
            Column("ties", [f"{pair.ties:,}" for _, pair in pairs], right=True),
            Column("p", [f"{pair.p:.3f}" for _, pair in pairs], right=True),
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
    # The same answer twice shows no spread, which does not mean that there is none.
    return f"{value} ± {100 * rate.standard_error:.0f}" if rate.standard_error else value


def _cost(row: LeaderboardRow) -> str:
    if row.usage.unpriced_calls:
        return "?"
    return "–" if row.cost_per_win is None else usd(row.cost_per_win)
