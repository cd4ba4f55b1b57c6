"""`moa compare`: your own prompts, answers side by side and blind."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.compare.results import drawn, leaderboard_lines, print_results, revealed
from moa_cli.cli.exit_codes import BUDGET, FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.options import (
    ARMS_HELP,
    Best,
    KeepTexts,
    Live,
    Plain,
    Save,
    arm_names,
    max_cost_option,
    split_names,
    takes_profile,
    typed_or,
)
from moa_cli.cli.output import output_width, print_lines, say
from moa_cli.cli.saving import open_books
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.files.text import holds_bytes
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.bench.data.items import Item
    from moa_cli.bench.run.arms import Arm
    from moa_cli.compare.contest import ArmAnswer, ShownAnswer
    from moa_cli.core.conversation import Turn
    from moa_cli.engine import Limits
    from moa_cli.profile import Profile
    from moa_cli.store.accounts import Records
    from moa_cli.store.comparisons import Comparison

# Answers have the letters before `q`; the other keys follow.
_MOST_ARMS = ascii_lowercase.index("q")
_TIE, _NONE_GOOD, _SKIP, _NOTE, _LEAVE = "t", "0", "s", "w", ("q", "\x04")
_KEYS = f"{_TIE}: tie, {_NONE_GOOD}: none good, {_SKIP}: skip, {_NOTE}: note, {_LEAVE[0]}: quit"
# In characters.
_LONGEST_NOTE = 2_000


def _second_words() -> list[str]:
    """The commands that begin with `compare`, for the shell's completion after that word."""
    from moa_cli.cli.commands import built
    from moa_cli.cli.table import app

    names = built(app).list_commands(None)
    return [name.removeprefix("compare ") for name in names if name.startswith("compare ")]


@takes_profile
def compare(
    profile: Profile,
    concurrency: int | None,
    *,
    prompts: Annotated[
        list[str] | None,
        Argument(metavar="PROMPT", help="What to ask.", autocompletion=_second_words),
    ] = None,
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
            help=f"The arms to compare, separated by commas: {ARMS_HELP}.",
        ),
    ] = "mixture,single",
    best: Best = None,
    profiles: Annotated[
        list[str] | None,
        Option(
            metavar="NAMES",
            help="Compare these profiles, separated by commas, instead of arms of one profile.",
        ),
    ] = None,
    max_cost: Annotated[float | None, max_cost_option("Maximum cost of all prompts.")] = None,
    seed: Annotated[
        int | None, Option(metavar="N", help="Seed of the order of the answers, to repeat it.")
    ] = None,
    results: Annotated[
        bool, Option("--results", help="Print the choices so far; ask nothing.")
    ] = False,
    json: Annotated[bool, Option("--json", help="With --results: print a JSON array.")] = False,
    pairs: Annotated[
        bool,
        Option("--pairs", help="With --results: also print intervals, strengths, and each pair."),
    ] = False,
    since: Annotated[
        str | None,
        Option(metavar="SPAN", help="With --results: only choices from the last SPAN, such as 7d."),
    ] = None,
    save: Save = None,
    keep_texts: KeepTexts = None,
    plain: Plain = None,
    live: Live = None,
) -> None:
    """Choose between answers without seeing which model wrote them.

    `moa compare list`, `show`, `export`, `delete` and `judge` are for choices that were made. A
    prompt that is such a word goes after `--`.
    """
    if results:
        if prompts or file is not None:
            raise UsageError("--results cannot be used with prompts", hint="leave them out")
        print_results(since, json=json, pairs=pairs)
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
            "choosing an answer needs a terminal", hint="--results prints earlier choices"
        )
    compared = _arms(profile, kinds, best, names)
    items = _items(prompts or [], file)
    books = open_books(save=save)
    if keep_texts and books.store is None:
        raise UsageError(
            "--keep-texts needs saving, which is off",
            hint="remove --no-save, or set `save` to true in the settings",
        )
    models = (model for arm in compared for model in arm.profile.models())
    for notice in wiring.providers().key_notices(models):
        say(notice)
    settings = wiring.config()
    keeps_texts = typed_or(keep_texts, settings.keep_texts)
    budgets = accounts.budgets(settings, books.spending) + wiring.session_budget("shared")
    if max_cost is not None:
        budgets += (Budget(Cap("--max-cost", "usd", max_cost), "shared"),)
    ledger = CallRecorder(books.spending, say) if books.spending else None
    comparing = _Comparing(
        compared,
        books,
        wiring.limits(concurrency, budgets, ledger),
        # Not for security: the order must be unpredictable to the user, and repeatable with a seed.
        Random(seed),  # noqa: S311
        keeps_texts=keeps_texts,
        plain=typed_or(plain, settings.plain or settings.accessible),
        live=typed_or(live, settings.moves),
    )
    kept = "kept without prompts and answers (--keep-texts keeps them)"
    if keeps_texts:
        kept = "kept, with prompts and answers"
    if books.store is None:
        kept = "not kept"
    # The notice names no arms, because their names would reveal which models answer.
    say(f"{len(compared)} arms, shown blind; what you choose is {kept}")
    raise Exit(comparing.run(_asked() if items is None else items))


def _arms(
    profile: Profile, kinds: tuple[str, ...], best: str | None, names: tuple[str, ...] | None
) -> list[Arm]:
    """The arms of a profile, or the mixtures of the named profiles. Raises UsageError if two of
    them have the same name, or there are too few or too many."""
    from moa_cli.bench.run.arms import best_of, make_arms

    if names is None:
        arms = list(make_arms(profile, kinds, best_of(profile, best) if "self" in kinds else ""))
    elif any(origin.kind == "flag" for origin in profile.origins.values()):
        raise UsageError("--profiles: options that change a mixture are for one profile")
    else:
        from moa_cli.profile import Overrides

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
    """The prompts; None if the user types them."""
    from moa_cli.batch.prompts import read_prompts
    from moa_cli.bench.data.items import Item, read_file

    items = [Item(id="", turns=(prompt,)) for prompt in prompts if prompt.strip()]
    if file is not None:
        name = str(file)
        if name.lower().endswith((".csv", ".tsv")):
            # The header row of such a file would be sent as a prompt.
            raise UsageError(
                f"{name}: is a table, whose lines are not prompts",
                hint='write it as lines of {"prompt": …} (.jsonl), or one prompt a line',
            )
        items += read_prompts(read_file(file), name)
    if any(map(holds_bytes, prompts)):
        raise UsageError("a prompt is not UTF-8 text", hint="use a terminal with UTF-8")
    if not items and prompts:
        raise UsageError("there is nothing to ask")
    return items or None


def _asked() -> Iterator[Item]:
    """The prompts that the user types, until Ctrl-D."""
    from moa_cli.bench.data.items import Item

    while True:
        sys.stdout.write("› ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stdout.write("\n")
            return
        if holds_bytes(line):
            say("this prompt is not UTF-8 text, and was not sent")
        elif line.strip():
            yield Item(id="", turns=(line.strip(),))


@dataclass
class _Comparing:
    """The choices of one command.

    random: gives the order in which answers are shown. keeps_texts: whether prompts and answers are
    kept, too. plain: whether answers are shown as raw text. live: whether moving parts are drawn.
    chosen: the choices so far. code: the exit code.
    """

    arms: list[Arm]
    books: Records
    limits: Limits
    random: Random
    keeps_texts: bool
    plain: bool
    live: bool
    chosen: list[Comparison] = field(default_factory=list)
    code: int = 0

    def run(self, items: Iterator[Item] | Sequence[Item]) -> int:
        """For each prompt, ask the arms, show their answers, let the user choose, and reveal the
        arms. Returns the exit code."""
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
        """Compare the answers to one prompt. Returns whether to continue with the next one."""
        from moa_cli.terminal.tty import run_loop

        print_lines(["", *drawn("", f"› {item.turns[0]}", raw=True)])
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
            print_lines(_revealed([], failed))
            say("fewer than two answers: this prompt is not counted")
            self.code = FAILED
            return True
        return self._choose(item, there, failed)

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

    def _choose(self, item: Item, there: list[ArmAnswer], failed: list[ArmAnswer]) -> bool:
        from moa_cli.compare.contest import merged, same_final_answers
        from moa_cli.compare.leaderboard import leaderboard

        shown = merged(there)
        # In the order of the screen, where arms with the same answer stand next to each other.
        there = [answer for group in shown for answer in group.given]
        if failed:
            say(f"{plural(len(failed), 'arm')} failed; their names follow after your choice")
        for group in shown:
            print_lines(self._answer_lines(group))
        for said, groups in same_final_answers(shown):
            names = " and ".join(group.letters for group in groups)
            print_lines([one_line(f"the same final answer in {names}: {said}"), ""])
        if len(shown) == 1:
            say(f"all {len(there)} arms gave this answer: counted as a tie")
            choice = _Choice(None)
        else:
            asked = self._asked_key(shown)
            if asked is None:
                return False
            choice = asked
        if not choice.skipped:
            self._keep(item, there, shown, choice)
        winners = () if choice.winner is None else shown[choice.winner].given
        print_lines(_revealed(there, failed, winners))
        if choice.note:
            print_lines([folded(one_line(f"note: {choice.note}", _LONGEST_NOTE), sys.stdout)])
        if not choice.skipped:
            print_lines(["", *leaderboard_lines(leaderboard(self.chosen), output_width(80))])
        return True

    def _answer_lines(self, group: ShownAnswer) -> list[str]:
        from moa_cli.core.outcomes import cut_of

        lines = drawn(f"── {group.letters} ──", group.given[0].reply, raw=self.plain)
        if len(group.given) > 1:
            lines += [f"({len(group.given)} arms gave this answer)", ""]
        for cut in dict.fromkeys(cut_of(answer.turn) for answer in group.given):
            if cut:
                lines += [f"(the reply was {cut})", ""]
        return lines

    def _asked_key(self, shown: Sequence[ShownAnswer]) -> _Choice | None:
        """The user's choice; None if they quit."""
        places = {letter: place for place, group in enumerate(shown) for letter in group.keys}
        letters = "/".join("=".join(group.keys) for group in shown)
        note = ""
        while True:
            pressed = _pressed(
                f"Which is best? [{letters}, {_KEYS}] ",
                (*places, _TIE, _NONE_GOOD, _SKIP, _NOTE, *_LEAVE),
            )
            if pressed in _LEAVE:
                return None
            if pressed != _NOTE:
                return _Choice(
                    places.get(pressed),
                    skipped=pressed == _SKIP,
                    none_good=pressed == _NONE_GOOD,
                    note="" if pressed == _SKIP else note,
                )
            note = _asked_note(note)

    def _keep(
        self,
        item: Item,
        there: Sequence[ArmAnswer],
        shown: Sequence[ShownAnswer],
        choice: _Choice,
    ) -> None:
        from moa_cli.store.comparisons import ComparedTexts, Comparison

        numbers = tuple(number for number, group in enumerate(shown) for _ in group.given)
        texts = None
        if self.keeps_texts:
            texts = ComparedTexts(
                item.turns[0],
                tuple(answer.reply for answer in there),
                tuple((message.role, message.content) for message in item.before),
            )
        comparison = Comparison(
            time.time(),
            tuple(answer.contender() for answer in there),
            None if choice.winner is None else numbers.index(choice.winner),
            numbers if len(shown) < len(there) else (),
            none_good=choice.none_good,
            note=choice.note,
            texts=texts,
        )
        self.chosen.append(comparison)
        if self.books.store is None:
            return
        try:
            self.books.store.comparisons.add(comparison)
        except StoreError as error:
            say(f"this choice is not saved: {error.message}")
            self.books = replace(self.books, store=None)


@dataclass(frozen=True)
class _Choice:
    """The user's choice. winner: the index of the best answer, as shown; None if there is none. For
    the other fields see `Comparison`."""

    winner: int | None
    skipped: bool = False
    none_good: bool = False
    note: str = ""


def _pressed(question: str, keys: Sequence[str]) -> str:
    """Wait until one of these keys is pressed. Returns it in lower case. Raises
    KeyboardInterrupt."""
    from moa_cli.terminal.tty import single_keys

    with single_keys() as key:
        sys.stdout.write(folded(question.rstrip(), sys.stdout) + " ")
        sys.stdout.flush()
        pressed = ""
        while pressed not in keys:
            pressed = key().lower()
    sys.stdout.write(f"{pressed if pressed.isprintable() else ''}\n")
    sys.stdout.flush()
    return pressed


def _asked_note(before: str) -> str:
    """The user's note on their choice. The earlier note stays if the input ends, or is not text. An
    empty line removes it. Raises KeyboardInterrupt."""
    sys.stdout.write("note: ")
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stdout.write("\n")
        return before
    if holds_bytes(line):
        say("this note is not UTF-8 text, and was not saved")
        return before
    return " ".join(sanitize(line).split())[:_LONGEST_NOTE]


def _revealed(
    there: Sequence[ArmAnswer], failed: Sequence[ArmAnswer], winners: Sequence[ArmAnswer] = ()
) -> list[str]:
    """Lines on which arms gave the answers, in the order in which these were shown, and on which
    arms gave none.

    winners: the arms that gave the chosen answer.
    """
    from moa_cli.core.outcomes import cut_lines

    lines: list[str] = []
    if there:
        chosen = [place for place, answer in enumerate(there) if answer in winners]
        lines = revealed([answer.contender() for answer in there], chosen, output_width(80))
    # This is shown only after the choice, because the names of proposers would reveal the arms.
    for answer in there:
        cuts = cut_lines(answer.turn)
        lines += [one_line(f"{answer.arm.name}: {cut}") for cut in cuts]
    for answer in failed:
        arm = answer.arm
        lines.append(one_line(f"{arm.name} ({arm.profile.name}) failed: {answer.trouble}"))
    return lines
