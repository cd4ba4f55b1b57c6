"""What `moa compare` does once its options are read."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase

from moa_cli.batch.prompts import check_no_table, is_json_name, read_prompts
from moa_cli.bench.data.items import Item, read_file
from moa_cli.bench.run.arms import Arm, best_of, make_arms
from moa_cli.bench.run.limiter import CallLimiter
from moa_cli.cli import wiring
from moa_cli.cli.bench.session import open_pool, say
from moa_cli.cli.budget import caps
from moa_cli.cli.compare_results import standing_lines
from moa_cli.cli.compare_text import answer_lines, revealed_lines
from moa_cli.cli.exit_codes import BUDGET, FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.options import typed_or
from moa_cli.cli.saving import open_books, warn
from moa_cli.compare.contest import Contest, Shown
from moa_cli.compare.standings import standings
from moa_cli.core.conversation import Turn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.text import plural
from moa_cli.core.text_files import holds_bytes
from moa_cli.engine import Cap
from moa_cli.profile import Overrides, Profile
from moa_cli.store.accounts import Books
from moa_cli.store.comparisons import Comparison
from moa_cli.store.spending import CallBook
from moa_cli.terminal.progress import Progress, ProgressView, progress_view
from moa_cli.terminal.single_keys import single_keys
from moa_cli.terminal.tty import cancel_on_termination, columns_of, without_echo

__all__ = ["Options", "run"]

# T, s and q are other keys.
_MOST_ARMS = ascii_lowercase.index("q")
_TIE, _SKIP, _LEAVE = "t", "s", ("q", "\x04")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed; None where nothing was."""

    prompts: tuple[str, ...]
    file: Path | None
    arms: tuple[str, ...]
    best: str | None
    profiles: tuple[str, ...] | None
    concurrency: int | None
    max_cost: float | None
    seed: int | None
    save: bool | None
    plain: bool | None
    live: bool | None


def run(profile: Profile, options: Options) -> int:
    """Ask, show, let choose, tell, prompt after prompt; returns the exit code."""
    if not all(one is not None and one.isatty() for one in (sys.stdin, sys.stdout)):
        raise UsageError(
            "somebody at a terminal must choose", hint="--results prints what was chosen"
        )
    arms = _arms(profile, options)
    items = _items(options)
    books = open_books(save=options.save)
    for notice in wiring.providers().key_notices(
        model for arm in arms for model in arm.profile.models()
    ):
        say(notice)
    comparing = _Comparing(arms, options, books)
    # Who they are would be told by their names.
    say(f"{len(arms)} arms, shown blind; what you choose is{' not' * (not books.store)} kept")
    try:
        for item in _asked() if items is None else items:
            if not comparing.compare(item):
                break
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        kept = " and kept" if books.store is not None else ""
        say(f"interrupted; {plural(len(comparing.chosen), 'choice')} made{kept}")
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    return comparing.code


def _arms(profile: Profile, options: Options) -> list[Arm]:
    """Raises UsageError if they cannot be told apart, or are too few or too many."""
    if options.profiles is None:
        best = best_of(profile, options.best) if "self" in options.arms else ""
        arms = make_arms(profile, options.arms, best)
    else:
        if any(one.kind == "flag" for one in profile.origins.values()):
            raise UsageError("--profiles: options that change a mixture are for one profile")
        named = [wiring.choose_profile(one, Overrides()) for one in options.profiles]
        arms = [arm for one in named for arm in make_arms(one, ("mixture",), "")]
    names = {(arm.name, arm.profile.name) for arm in arms}
    if len(names) < 2 or len(names) < len(arms):
        raise UsageError(
            "there must be two different arms at least",
            hint="--arms mixture,self,single, or --profiles a,b",
        )
    if len(arms) > _MOST_ARMS:
        raise UsageError(f"{len(arms)} arms are too many: {_MOST_ARMS} at most")
    return arms


def _items(options: Options) -> list[Item] | None:
    """What is asked; None if it is to be typed."""
    items = [Item(id="", turns=(one,)) for one in options.prompts if one.strip()]
    if options.file is not None:
        name = str(options.file)
        check_no_table(name, 'write it as lines of {"prompt": …} (.jsonl), or one prompt a line')
        items += read_prompts(read_file(options.file), name, lines=not is_json_name(name))
    if any(map(holds_bytes, options.prompts)):
        raise UsageError("a prompt is not UTF-8 text", hint="use a terminal that speaks UTF-8")
    if not items and options.prompts:
        raise UsageError("there is nothing to ask")
    return items or None


def _asked() -> Iterator[Item]:
    """What is typed, until Ctrl-D."""
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


class _Comparing:
    """The choices of one command. code: what it will exit with. chosen: so far."""

    def __init__(self, arms: list[Arm], options: Options, books: Books) -> None:
        self._options = options
        self._books = books
        self._arms = arms
        # Not for secrets: the order must only be unforeseen, and repeat with a seed.
        self._random = random.Random(options.seed)  # noqa: S311
        ledger = None if books.spending is None else CallBook(books.spending, warn)
        self._limits = wiring.limits(options.concurrency, self._caps(), ledger)
        self._contest = Contest(arms, self._limits, self._ended)
        self._progress = Progress(total=0)
        self._view: ProgressView | None = None
        self.chosen: list[Comparison] = []
        self.code = 0

    def _caps(self) -> tuple[Cap, ...]:
        found = list(caps(None, None, self._books.spending, one_turn=False))
        shared = {"budget.session": wiring.config().budget.session}
        shared["--max-cost"] = self._options.max_cost
        found += [
            Cap.shared_cost(name, limit, lambda: self._contest.spent())
            for name, limit in shared.items()
            if limit is not None
        ]
        return tuple(found)

    def _ended(self, turn: Turn) -> None:
        if turn.error is None and not turn.lost:
            self._progress.done += 1
        else:
            self._progress.failed += 1
        self._progress.spent += turn.usage
        if self._view is not None:
            self._view.changed()

    def compare(self, item: Item) -> bool:
        """One prompt; whether there is to be another."""
        self._write(["", *self._drawn_prompt(item)])
        shown = asyncio.run(self._answers(item))
        capped = next((one.turn.error for one in shown if one.turn.capped), None)
        failed = [one for one in shown if one.trouble is not None]
        there = [one for one in shown if one.trouble is None]
        self._random.shuffle(there)
        if capped is not None:
            say(capped.message)
            self.code = BUDGET
            return False
        if len(there) < 2:
            self._write(revealed_lines([], failed, None, self._width()))
            say("fewer than two answers: this prompt is not counted")
            self.code = FAILED
            return True
        return self._choose(there, failed)

    def _drawn_prompt(self, item: Item) -> list[str]:
        return answer_lines("", f"› {item.turns[0]}", raw=True)

    async def _answers(self, item: Item) -> list[Shown]:
        cancel_on_termination()
        clients = open_pool()
        limiter = CallLimiter(
            self._limits.concurrency,
            None,
            lambda model: clients.providers.parse(model)[0].name,
        )
        self._progress = Progress(total=len(self._arms), in_flight=lambda: limiter.in_flight)
        live = typed_or(self._options.live, wiring.config().live)
        self._view = progress_view(sys.stderr, self._progress, live=live)
        try:
            with without_echo(sys.stdout):
                self._view.start()
                try:
                    return await self._contest.answers(item, clients, limiter)
                finally:
                    self._view.close()
        finally:
            await clients.aclose()

    def _choose(self, there: list[Shown], failed: list[Shown]) -> bool:
        letters = ascii_lowercase[: len(there)]
        raw = typed_or(self._options.plain, wiring.config().plain)
        if failed:
            say(f"{plural(len(failed), 'arm')} failed, named after your choice")
        with single_keys() as key:
            for letter, one in zip(letters, there, strict=True):
                self._write(answer_lines(f"── {letter.upper()} ──", one.reply, raw=raw))
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
        self._write(revealed_lines(there, failed, winner, self._width()))
        if pressed != _SKIP:
            self._write(["", *standing_lines(standings(self.chosen), self._width())])
        return True

    def _keep(self, there: list[Shown], winner: int | None) -> None:
        one = Comparison(time.time(), tuple(shown.contender() for shown in there), winner)
        self.chosen.append(one)
        if self._books.store is None:
            return
        try:
            self._books.store.comparisons.add(one)
        except StoreError as error:
            warn(f"this choice is not kept: {error.message}")
            self._books = replace(self._books, store=None)

    def _width(self) -> int:
        return columns_of(sys.stdout) or 80

    def _write(self, lines: list[str]) -> None:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
