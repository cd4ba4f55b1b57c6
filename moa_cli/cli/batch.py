"""`moa batch`: many prompts, one line of JSON for each answer."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import BUDGET, FAILED
from moa_cli.cli.options import Live, ProviderConcurrency, max_cost_option, takes_profile, typed_or
from moa_cli.cli.output import say
from moa_cli.cli.saving import saves
from moa_cli.cli.streams import standard_input
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.money import cost_text
from moa_cli.core.new_files import check_name
from moa_cli.core.text import plural
from moa_cli.core.text_files import STANDARD_INPUT
from moa_cli.profile import Profile

if TYPE_CHECKING:
    from moa_cli.batch.output import Written
    from moa_cli.batch.prompts import Batch
    from moa_cli.bench.run.folder import State
    from moa_cli.cli.bench.session import SessionOptions

_STREAM = "-"
# So many different losses are named in the end.
_LOSSES = 5


@takes_profile
def batch(
    profile: Profile,
    concurrency: int | None,
    *,
    source: Annotated[
        str,
        Argument(
            metavar="IN",
            help="Lines of {prompt or messages, id?, …}, or of one prompt each; - is standard"
            " input.",
        ),
    ],
    target: Annotated[
        str, Argument(metavar="OUT", help="Where the lines of answers go; - is standard output.")
    ],
    lines: Annotated[
        bool | None,
        Option(
            "--lines/--jsonl",
            help="What IN holds: a prompt on each line, or JSON; else as it is named (.jsonl,"
            " .ndjson and .json are JSON, and so is standard input).",
        ),
    ] = None,
    as_finished: Annotated[
        bool, Option("--as-finished", help="Write lines as answers end, not in the order of IN.")
    ] = False,
    proposals: Annotated[
        bool, Option("--proposals", help="Write every layer's proposals too.")
    ] = False,
    strict: Annotated[
        bool,
        Option(
            "--strict",
            help="An answer that lost a proposer has failed; else it is marked (`lost`).",
        ),
    ] = False,
    limit: Annotated[
        int | None, Option("-n", "--limit", metavar="N", min=1, help="The first N prompts only.")
    ] = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: Annotated[
        float | None,
        max_cost_option("Most that the whole batch may cost, all its sessions together."),
    ] = None,
    yes: Annotated[
        bool,
        Option(
            "-y",
            "--yes",
            help="Do not ask before anything is sent; without a terminal, moa never asks.",
        ),
    ] = False,
    live: Live = None,
    save: Annotated[
        bool | None,
        Option(
            "--save/--no-save",
            help="Keep OUT.state, by which the same command goes on; else `save` in the settings"
            " says.",
        ),
    ] = None,
) -> None:
    """Answer many prompts; the same command goes on where it was stopped."""
    from moa_cli.batch.prompts import make_batch
    from moa_cli.cli.bench.session import SessionOptions

    data, name, is_json = _read(source, named_as_lines=lines is not None)
    made = make_batch(
        profile,
        data,
        name,
        lines=typed_or(lines, not is_json),
        limit=limit,
        strict=strict,
        proposals=proposals,
    )
    at_terminal = sys.stdin.isatty() and source != _STREAM
    # Lines of answers and a line that moves would not get along.
    beside = target == _STREAM and sys.stdout.isatty()
    options = SessionOptions(
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes or not at_terminal,
        live=False if beside else live,
        save=save,
    )
    start = _Start(made, target, not as_finished, options)
    raise Exit(start.run(_path(source, target), keep=saves(save)))


def _read(source: str, *, named_as_lines: bool) -> tuple[bytes, str, bool]:
    """The bytes of IN, what messages call it, and whether it should be JSON.

    named_as_lines: whether it was said what it holds.
    """
    from moa_cli.batch.prompts import check_no_table, is_json_name
    from moa_cli.bench.data.items import read_file

    if source == _STREAM:
        return standard_input(say).read(), STANDARD_INPUT, True
    path = paths.expand(source)
    if not named_as_lines:
        remedy = 'write it as lines of {"prompt": …}; --lines takes each line as a prompt'
        check_no_table(str(path), remedy)
    return read_file(path), str(path), is_json_name(source)


def _path(source: str, target: str) -> Path | None:
    """OUT; None is standard output. Raises UsageError if no lines can be added there and read
    again."""
    if target == _STREAM:
        return None
    path = paths.expand(target)
    if path.exists() and not paths.is_file(path):
        raise UsageError(f"{path}: is not a file", hint="- is standard output")
    # What a link points to is replaced, not the link.
    path = path.resolve()
    check_name(path)
    if source != _STREAM and path == paths.expand(source).resolve():
        raise UsageError("IN and OUT are the same file")
    return path


@dataclass(frozen=True)
class _Start:
    """One start of a batch. target: OUT, as it was typed."""

    batch: Batch
    target: str
    in_order: bool
    options: SessionOptions

    def run(self, path: Path | None, *, keep: bool) -> int:
        """Tell what it takes, ask if there is somebody to ask, run; returns the exit code.

        path: OUT, None is standard output. keep: whether calls are kept beside it, so that the
        same command goes on.
        """
        from moa_cli.batch.output import OutputFile, OutputStream
        from moa_cli.batch.prompts import BatchSettings
        from moa_cli.bench.run.folder import State, StateFolder, opened

        if path is None:
            return self._answer(State(), OutputStream(sys.stdout), ())
        hint = "use the same, or name another OUT"
        folder = path.with_name(f"{path.name}.state")
        if not keep and folder.exists():
            raise UsageError(
                f"{folder}: is the state of a batch that keeps its calls",
                hint="--save goes on with it",
            )
        with ExitStack() as stack:
            state: State[BatchSettings] | StateFolder[BatchSettings] = State()
            if keep:
                kept = opened(
                    folder, lambda path: StateFolder(path, "batch.json", BatchSettings, hint)
                )
                state = stack.enter_context(kept)
                state.check(self.batch.settings())
            if not state.settings and path.exists() and path.stat().st_size:
                raise BenchError(
                    f"{path}: already exists, without the state of a batch", hint="name another OUT"
                )
            orders = {item.id: order for order, item in enumerate(self.batch.items)}
            output = OutputFile(path, orders, in_order=self.in_order)
            stack.enter_context(closing(output))
            if state.settings:
                say(
                    f"going on in {self.target}: {plural(len(output.there), 'answer')} and"
                    f" {plural(len(state.journal), 'call')} are there and not asked for again"
                )
            code = self._answer(state, output, output.there)
            if code == 0 and isinstance(state, StateFolder):
                # The answers tell what is done; the settings stay, to be held against the next
                # start's.
                state.forget_calls()
            return code

    def _answer(self, state: State[Any], output: Written, there: Collection[str]) -> int:
        """Answer what is left; the exit code. there: the ids of what is answered."""
        from moa_cli.batch.output import Answers, InOrder
        from moa_cli.bench.run.folder import StateFolder
        from moa_cli.bench.run.runner import still_to_do
        from moa_cli.cli.bench.session import Job, session

        todo = [work for work in self.batch.work() if work.item.id not in there]
        if not todo:
            return 0
        for line in [*wiring.introduction(self.batch.profile), plural(len(todo), "prompt")]:
            say(line)
        if self.in_order:
            output = InOrder(output, [work.order for work in todo])
        answers = Answers(self.batch, state.journal, output, there)
        goes_on = isinstance(state, StateFolder)
        job = Job(
            self.batch,
            state,
            answers,
            self.options,
            partial=not self.batch.strict,
            goes_on=goes_on,
            called=lambda result: result.item,
        )
        code, capped = session(job, todo)
        answers.finish(())
        if code:
            return code
        spent, total = state.journal.spent, len(list(self.batch.work()))
        done = total - len(still_to_do(self.batch.work(), answers))
        into = f" in {self.target}" if self.target != _STREAM else ""
        lost = f", {answers.lost} without some of the proposals" if answers.lost else ""
        cut = f", {answers.cut} cut (see `finish_reason`)" if answers.cut else ""
        cost = f", {cost_text(spent)}" if spent.calls else ""
        say(f"{done:,} of {plural(total, 'answer')}{into}{lost}{cut}{cost}")
        for loss, times in answers.losses.most_common(_LOSSES):
            say(f"degraded, {times:,} of them lost {loss}")
        if len(answers.losses) > _LOSSES:
            say(f"{len(answers.losses) - _LOSSES:,} other losses are in the output, under `lost`")
        if capped is not None:
            more = " (the same command with a higher cap goes on from there)" if goes_on else ""
            say(f"{capped.message}{more}")
            return BUDGET
        if answers.failed:
            more = "; the same command tries them again" if goes_on else ""
            say(f"{answers.failed} failed{more}")
            return FAILED
        return 0
