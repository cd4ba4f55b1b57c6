"""What `moa batch` does once its options are read."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from moa_cli.batch.output import Answers, InOrder, OutputFile, OutputStream, Written
from moa_cli.batch.prompts import Batch, BatchSettings, check_no_table, is_json_name, make_batch
from moa_cli.bench.data.items import read_file
from moa_cli.bench.run.folder import State, StateFolder, opened
from moa_cli.bench.run.runner import still_to_do
from moa_cli.cli import wiring
from moa_cli.cli.bench.session import Job, SessionOptions, say, session
from moa_cli.cli.exit_codes import BUDGET, FAILED
from moa_cli.cli.options import typed_or
from moa_cli.cli.saving import saves
from moa_cli.cli.writing import check_name
from moa_cli.core import paths
from moa_cli.core.conversation import Failure
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.money import cost_text
from moa_cli.core.text import plural
from moa_cli.core.text_files import STANDARD_INPUT
from moa_cli.profile import Profile

__all__ = ["Options", "run"]

_STREAM = "-"


@dataclass(frozen=True, kw_only=True)
class Options(SessionOptions):
    """What was typed; None where nothing was."""

    source: str
    target: str
    lines: bool | None
    as_finished: bool
    proposals: bool
    strict: bool
    limit: int | None


def run(profile: Profile, options: Options) -> int:
    """Tell what it takes, ask if there is somebody to ask, run; returns the exit code."""
    batch = _batch(profile, options)
    kept = saves(options.save)
    if options.target == _STREAM:
        return _answer(batch, options, State(), OutputStream(sys.stdout), ())
    path = _target(options)
    folder = path.with_name(f"{path.name}.state")
    if not kept:
        if folder.exists():
            raise UsageError(
                f"{folder}: is the state of a batch that keeps its calls",
                hint="--save goes on with it",
            )
        _check_free(path)
        with contextlib.closing(_output(batch, options, path)) as output:
            return _answer(batch, options, State(), output, ())
    with _open_state(folder) as state:
        state.check(batch.settings())
        if not state.settings:
            _check_free(path)
        with contextlib.closing(_output(batch, options, path)) as output:
            return _to_file(batch, options, state, output)


def _check_free(path: Path) -> None:
    if path.exists() and path.stat().st_size:
        raise BenchError(
            f"{path}: is there already, without the state of a batch", hint="name another OUT"
        )


def _output(batch: Batch, options: Options, path: Path) -> OutputFile:
    orders = {one.id: order for order, one in enumerate(batch.items)}
    return OutputFile(path, orders, in_order=not options.as_finished)


def _open_state(path: Path) -> AbstractContextManager[StateFolder[BatchSettings]]:
    hint = "use the same, or name another OUT"
    return opened(path, lambda folder: StateFolder(folder, "batch.json", BatchSettings, hint))


def _batch(profile: Profile, options: Options) -> Batch:
    name = options.source
    if name == _STREAM:
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("there is no standard input to read prompts from")
        data, told = sys.stdin.buffer.read(), STANDARD_INPUT
    else:
        path = paths.expand(name)
        if options.lines is None:
            remedy = 'write it as lines of {"prompt": …}; --lines takes each line as a prompt'
            check_no_table(str(path), remedy)
        data, told = read_file(path), str(path)
    is_json = name == _STREAM or is_json_name(name)
    return make_batch(
        profile,
        data,
        told,
        lines=typed_or(options.lines, not is_json),
        limit=options.limit,
        strict=options.strict,
        proposals=options.proposals,
    )


def _target(options: Options) -> Path:
    """Raises UsageError if no lines can be added there and read again."""
    path = paths.expand(options.target)
    if path.exists() and not paths.is_file(path):
        raise UsageError(f"{path}: is no file", hint="- is standard output")
    # What a link points to is replaced, not the link.
    path = path.resolve()
    check_name(path)
    if options.source != _STREAM and path == paths.expand(options.source).resolve():
        raise UsageError("IN and OUT are one file")
    return path


def _to_file(
    batch: Batch, options: Options, state: StateFolder[BatchSettings], output: OutputFile
) -> int:
    if state.settings:
        say(
            f"going on in {options.target}: {plural(len(output.there), 'answer')} and"
            f" {plural(len(state.journal), 'call')} are there and not asked for again"
        )
    code = _answer(batch, options, state, output, output.there)
    if code == 0:
        # The answers tell what is done; the settings stay, to be held against the next start's.
        state.forget_calls()
    return code


def _answer(
    batch: Batch,
    options: Options,
    state: State[BatchSettings],
    output: Written,
    there: Collection[str],
) -> int:
    """One start of a batch; the exit code. there: the ids of what is answered."""
    todo = [one for one in batch.work() if one.item.id not in there]
    if not todo:
        return 0
    for line in [*wiring.introduction(batch.profile), plural(len(todo), "prompt")]:
        say(line)
    if not options.as_finished:
        output = InOrder(output, [one.order for one in todo])
    answers = Answers(batch, state.journal, output, there)
    job = Job(
        batch,
        state,
        answers,
        _in_place(options),
        partial=not batch.strict,
        goes_on=isinstance(state, StateFolder),
        called=lambda result: result.item,
    )
    code, capped = session(job, todo)
    answers.finish(())
    return code or _summary(batch, options, state, answers, capped)


def _in_place(options: Options) -> Options:
    """What holds where nothing was typed, and IN or OUT may be a terminal."""
    asked = sys.stdin is not None and sys.stdin.isatty() and options.source != _STREAM
    # Lines of answers and a line that moves would not get along.
    beside = options.target == _STREAM and sys.stdout.isatty()
    return replace(options, yes=options.yes or not asked, live=False if beside else options.live)


def _summary(
    batch: Batch,
    options: Options,
    state: State[BatchSettings],
    answers: Answers,
    capped: Failure | None,
) -> int:
    """Tell what came of it; the exit code."""
    goes_on, spent = isinstance(state, StateFolder), state.journal.spent
    total = len(list(batch.work()))
    done = total - len(still_to_do(batch, answers))
    into = f" in {options.target}" if options.target != _STREAM else ""
    lost = f", {answers.lost} without some of the proposals" if answers.lost else ""
    cost = f", {cost_text(spent)}" if spent.calls else ""
    say(f"{done:,} of {plural(total, 'answer')}{into}{lost}{cost}")
    if capped is not None:
        more = " (the same command with a higher cap goes on from there)" if goes_on else ""
        say(f"{capped.message}{more}")
        return BUDGET
    if answers.failed:
        more = "; the same command tries them again" if goes_on else ""
        say(f"{answers.failed} failed{more}")
        return FAILED
    return 0
