"""`moa batch`: many prompts, one line of JSON for each answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import BUDGET, FAILED
from moa_cli.cli.options import Live, ProviderConcurrency, max_cost_option, takes_profile
from moa_cli.cli.output import say
from moa_cli.cli.saving import saves
from moa_cli.cli.streams import standard_input
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.lock import locked
from moa_cli.core.files.new_file import check_name
from moa_cli.core.files.text import STANDARD_INPUT
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.batch.addresses import RemotePath
    from moa_cli.batch.output import OutputFile, OutputStream, Written
    from moa_cli.batch.prompts import Batch, Intake
    from moa_cli.batch.sources import Source
    from moa_cli.batch.state import BatchFolder, MemoryState
    from moa_cli.cli.bench.session import SessionOptions, WorkOff
    from moa_cli.profile import Profile

_STREAM = "-"
# The summary names at most this many different losses.
_LOSSES = 5
# An estimate for a large input is made from at most this many prompts.
_SAMPLE = 500


@takes_profile
def batch(
    profile: Profile,
    concurrency: int | None,
    *,
    source: Annotated[
        str,
        Argument(
            metavar="IN",
            help="JSON lines of {prompt or messages, id?, …}, one prompt a line, a CSV or TSV"
            " table, Parquet, or OpenAI's batch lines, gzipped or not; also a folder, a pattern"
            " ('*.jsonl') or an address (s3://…); - is standard input.",
        ),
    ],
    target: Annotated[
        str,
        Argument(
            metavar="OUT",
            help="The file for the answers, one JSON object a line; - is standard output. With"
            " the ending .csv, .tsv, .parquet or .gz, it is written in that format.",
        ),
    ],
    lines: Annotated[
        bool | None,
        Option(
            "--lines/--jsonl",
            help="Read IN as one prompt a line, or as JSON lines. By default, its ending decides"
            " (.jsonl, .ndjson and .json are JSON lines; .csv, .tsv, .parquet), and standard"
            " input is JSON lines.",
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        Option(
            "--format",
            metavar="FORMAT",
            help="The format of IN, whatever its ending: jsonl, lines, csv, tsv or parquet.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        Option("--column", metavar="FIELD", help="The column or field that holds the prompt."),
    ] = None,
    id_field: Annotated[
        str | None,
        Option("--id-field", metavar="FIELD", help="The column or field that holds the id."),
    ] = None,
    template: Annotated[
        str | None,
        Option(
            "--prompt",
            metavar="TEMPLATE",
            help='Make prompts from fields: "Summarize: {text}"; {{ is a brace.',
        ),
    ] = None,
    per_prompt: Annotated[
        int,
        Option(
            "--answers",
            metavar="N",
            min=1,
            help="Answer each prompt N times, each answer a line with its `sample`.",
        ),
    ] = 1,
    skip_bad: Annotated[
        bool,
        Option("--skip-bad", help="Skip lines that cannot be asked, and list them."),
    ] = False,
    as_finished: Annotated[
        bool,
        Option("--as-finished", help="Write each answer as it finishes, not in the order of IN."),
    ] = False,
    proposals: Annotated[
        bool, Option("--proposals", help="Write every layer's proposals too.")
    ] = False,
    strict: Annotated[
        bool,
        Option(
            "--strict",
            help="Treat an answer that lost a proposer as failed; by default, it is only marked"
            " (`lost`).",
        ),
    ] = False,
    limit: Annotated[
        int | None, Option("-n", "--limit", metavar="N", min=1, help="The first N prompts only.")
    ] = None,
    shard: Annotated[
        str | None,
        Option(
            "--shard",
            metavar="I/N",
            help="Only every N-th prompt, from the I-th on; `moa batch merge` puts the N outputs"
            " together.",
        ),
    ] = None,
    provider_batch: Annotated[
        bool,
        Option(
            "--provider-batch",
            help="Send the calls as jobs to the providers' batch APIs: about half the price, but"
            " up to a day for each layer.",
        ),
    ] = False,
    on: Annotated[
        str | None,
        Option(
            "--on",
            metavar="ray[://HOST:PORT]",
            help="Answer on a Ray cluster: that address, or RAY_ADDRESS, or this machine.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            "--workers",
            metavar="N",
            min=1,
            max=100_000,
            help="Processes of --on; by default one on each node.",
        ),
    ] = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: Annotated[
        float | None,
        max_cost_option("Maximum cost of the whole batch, all its sessions together."),
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
            help="Keep OUT.state, from which the same command resumes; by default, the setting"
            " `save` decides.",
        ),
    ] = None,
) -> None:
    """Answer many prompts; the same command resumes where it stopped."""
    from moa_cli.batch.addresses import is_address, place_at
    from moa_cli.batch.prompts import Batch
    from moa_cli.batch.reading import InputFormat
    from moa_cli.batch.shards import read_shard
    from moa_cli.cli.bench.session import SessionOptions

    share = None if shard is None else read_shard(shard)
    if lines is not None:
        if file_format is not None:
            raise UsageError("--format and --lines or --jsonl cannot be used together")
        file_format = "lines" if lines else "jsonl"
    made = Batch(
        profile,
        *_open(source, target, file_format),
        reading=InputFormat(column, id_field, template, per_prompt, skip_bad),
        limit=limit,
        strict=strict,
        proposals=proposals,
        shard=share,
        by_jobs=provider_batch,
    )
    if workers is not None and on is None:
        raise UsageError("--workers needs --on", hint="add --on ray")
    keep = saves(save)
    work_off: WorkOff | None = None
    if provider_batch:
        from moa_cli.cli.batch import provider_jobs as jobs

        if on is not None:
            raise UsageError("--on and --provider-batch cannot be used together")
        if target == _STREAM or not keep:
            raise UsageError(
                "--provider-batch needs OUT.state, which keeps the jobs while they run",
                hint="name a file as OUT, without --no-save",
            )
        jobs.check_batchable(made.models())
        work_off = jobs.work_off
    elif on is not None:
        from moa_cli.cli.batch import on_ray

        work_off = partial(on_ray.work_off, made.arm, on_ray.address_of(on), workers)
    at_terminal = sys.stdin.isatty() and source != _STREAM
    # A progress line that is redrawn would mix with answers on the same terminal.
    beside = target == _STREAM and sys.stdout.isatty()
    options = SessionOptions(
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes or not at_terminal,
        live=False if beside else live,
        save=save,
    )
    if not is_address(target):
        start = _Start(made, target, not as_finished, options, work_off)
        raise Exit(start.run(_path(source, target), keep=keep))
    place = place_at(target)
    path = _path(source, _local_name(place))
    assert path is not None
    start = _Start(made, place.address, not as_finished, options, work_off)
    code = start.run(path, keep=keep)
    _copy_out(path, place)
    raise Exit(code)


def _open(source: str, target: str, file_format: str | None) -> tuple[Source, str]:
    """IN and its format, which is typed or taken from the names of its files."""
    from moa_cli.batch.addresses import is_address, place_at
    from moa_cli.batch.sources import (
        FORMATS,
        JoinedSource,
        file_sources,
        format_of,
        piped_source,
    )

    if file_format not in (None, *FORMATS):
        raise UsageError(
            f"--format: there is no format `{file_format}`", hint=f"there are {', '.join(FORMATS)}"
        )
    if source == _STREAM:
        return piped_source(standard_input(say), STANDARD_INPUT), file_format or "jsonl"
    if is_address(source):
        place = place_at(source)
        name, found = place.address, place.sources()
    else:
        path = paths.expand(source)
        name, found = str(path), file_sources(path)
    if len(found) > 1:
        found = [part for part in found if not _is_written(part.name, target)] or found
    # The name of a folder does not tell what its files hold.
    kinds = sorted({format_of(part.name) for part in found})
    if file_format is None and len(kinds) > 1:
        raise UsageError(
            f"{name}: holds files of different formats: {', '.join(kinds)}",
            hint=f"name those of one format, such as …/*.{kinds[0]}",
        )
    return JoinedSource.of(name, found), file_format or kinds[0]


def _is_written(name: str, target: str) -> bool:
    """Whether a file of IN is written by the batch itself: OUT, its card or its state."""
    from moa_cli.batch.addresses import is_address

    def place(text: str) -> str:
        text = text.removeprefix("file://")
        return text if is_address(text) else paths.resolved(paths.expand(text)).as_posix()

    name = place(name)
    local = target.rpartition("/")[2] if is_address(target) else target
    return any(
        name in (out, f"{out}.card.json") or name.startswith(f"{out}.state/")
        for out in (place(target), place(local))
    )


def _path(source: str, target: str) -> Path | None:
    """The path of OUT; None is standard output. Raises UsageError if it cannot be a file to which
    lines are appended and from which they are read again."""
    if target == _STREAM:
        return None
    path = paths.expand(target)
    if path.exists() and not paths.is_file(path):
        raise UsageError(f"{path}: is not a file", hint="- is standard output")
    # Resolved, so that the target of a symbolic link is replaced and not the link.
    path = paths.resolved(path)
    check_name(path)
    if source != _STREAM and path == paths.resolved(paths.expand(source)):
        raise UsageError("IN and OUT are the same file")
    return path


@contextmanager
def _alone(path: Path, done: Callable[[], bool]) -> Iterator[None]:
    """Let no other process write an OUT that has no OUT.state, whose lock would keep it out.

    OUT is created at once. If it is empty at the end and the work is not `done`, it is deleted.
    Raises BenchError if another process is writing it.
    """
    if sys.platform == "win32":
        # On Windows, the byte of OUT that is locked could not be written.
        yield
        return
    with locked(path, seconds=0) as held:
        if held is False:
            raise BenchError(f"{path}: another process is writing it", hint="name another OUT")
        try:
            yield
        finally:
            if not done() and path.exists() and not path.stat().st_size:
                path.unlink()


def _take_lines(path: Path, lines: Path) -> None:
    """Move JSON lines from OUT to their file in OUT.state. Early versions wrote JSON lines to OUT
    whatever its name."""
    with path.open("rb") as file:
        is_json = file.read(1) == b"{"
    if is_json:
        path.replace(lines)


def _local_name(place: RemotePath) -> str:
    """The name of the file in the current folder that has the answers until they are copied to that
    place. It is needed because most addresses do not allow appending to a file.

    Raises UsageError or BenchError if the place is not a file, or has answers of another batch.
    """
    if not place.name or place.address.endswith("/"):
        raise UsageError(f"{place.address}: names no file")
    if place.is_page:
        raise UsageError(
            f"{place.address}: cannot be written, because it is at a web server",
            hint="name a file as OUT, or an address of a store, such as s3://bucket/answers.jsonl",
        )
    state = Path(f"{place.name}.state")
    if not state.exists() and place.exists():
        raise BenchError(
            f"{place.address}: already exists, and {state.absolute()} does not",
            hint="name another OUT, or resume in the folder where the batch was started",
        )
    return place.name


def _copy_out(path: Path, place: RemotePath) -> None:
    """Copy the answers and their data card to that place. Raises BenchError."""
    from moa_cli.batch.card import card_path

    if not path.exists():
        return
    place.copy_from(path)
    card = card_path(path)
    if card.exists():
        place.beside(card.name).copy_from(card)
    say(f"{path} is copied to {place.address}")


@dataclass(frozen=True)
class _Start:
    """One start of a batch. target: OUT, for messages. work_off: see `Job`."""

    batch: Batch
    target: str
    in_order: bool
    options: SessionOptions
    work_off: WorkOff | None = None

    def run(self, path: Path | None, *, keep: bool) -> int:
        """Show the estimate, ask if there is a terminal, and run. Returns the exit code.

        path: the path of OUT; None is standard output. keep: whether OUT.state is kept, so that the
        same command resumes.
        """
        import sqlite3

        from moa_cli.batch.index import INDEX

        try:
            return self._run(path, keep=keep)
        except sqlite3.Error as error:
            # The disk is full, or the file is damaged.
            raise BenchError(
                f"{path}.state/{INDEX}: {error}",
                hint="answers are kept; make room if the disk is full, then run the same command"
                " again",
            ) from None

    def _run(self, path: Path | None, *, keep: bool) -> int:
        from moa_cli.batch.card import read_card, write_card
        from moa_cli.batch.output import OutputFile, OutputStream
        from moa_cli.batch.state import BatchFolder, MemoryState
        from moa_cli.batch.tables import ANSWERS, make_output, output_format
        from moa_cli.batch.tally import spent_in, tally_in
        from moa_cli.bench.run.folder import opened

        if path is None:
            with closing(MemoryState(self.batch)) as kept:
                return self._answer(kept, OutputStream(sys.stdout, kept.index))
        folder = path.with_name(f"{path.name}.state")
        form = output_format(path.name)
        if not keep and not form.is_lines:
            raise UsageError(
                f"{path}: is written from the answers in OUT.state, which --no-save does not keep",
                hint="name it `.jsonl`, or add --save",
            )
        if not keep and folder.exists():
            raise UsageError(
                f"{folder}: is the state of a batch that keeps its calls",
                hint="--save resumes it",
            )
        code: int | None = None
        with ExitStack() as stack:
            state: MemoryState | BatchFolder
            if keep:
                state = stack.enter_context(
                    opened(folder, lambda path: BatchFolder(path, self.batch))
                )
            else:
                stack.enter_context(_alone(path, lambda: code == 0))
                state = stack.enter_context(closing(MemoryState(self.batch)))
            if not state.settings and path.exists() and path.stat().st_size:
                raise BenchError(
                    f"{path}: already exists, without the state of a batch", hint="name another OUT"
                )
            lines = path if form.is_lines else folder / ANSWERS
            if not form.is_lines and state.settings and not lines.exists() and path.exists():
                _take_lines(path, lines)
            sampled = self.batch.reading.samples > 1
            output = OutputFile(lines, state.index, in_order=self.in_order, sampled=sampled)
            stack.enter_context(closing(output))
            if isinstance(state, BatchFolder) and state.settings and not state.has_calls:
                # When all prompts were answered, the journal was deleted. The data card has its
                # sums.
                card = read_card(path)
                if card:
                    state.calls.go_on_from(spent_in(card), tally_in(card))
            code = self._answer(state, output)
            if code == 0 and not lines.exists():
                # Each job of a job array has an output, even if there are more jobs than prompts.
                state.note(self.batch.settings(state.intake.digest))
                lines.touch(0o600)
            # A cap may end the batch before its first line is written.
            has_lines = lines.exists()
            if has_lines and not form.is_lines:
                make_output(lines, path, form)
            if isinstance(state, BatchFolder) and state.settings and state.has_calls and has_lines:
                source = Path(self.batch.source.name).name
                write_card(path, lines, source, state.intake, state.settings, state.calls.models)
            if code == 0 and self.batch.by_jobs and isinstance(state, BatchFolder):
                from moa_cli.cli.batch.provider_jobs import forget_jobs

                forget_jobs(state)
            if code == 0 and isinstance(state, BatchFolder) and not len(state.journal):
                # The output shows which prompts are answered, so the calls are not needed. The
                # settings stay, to be compared with those of the next start. Calls of prompts
                # beyond a limit are still needed.
                state.forget_calls()
            return code

    def _answer(self, state: MemoryState | BatchFolder, output: OutputStream | OutputFile) -> int:
        """Answer the prompts that have no answer yet. Returns the exit code."""
        from moa_cli.batch.output import Answers, InOrder, release
        from moa_cli.batch.prompts import Todo
        from moa_cli.batch.state import BatchFolder
        from moa_cli.cli.bench.session import Amount, Job, session
        from moa_cli.core.money import cost_text
        from moa_cli.core.outcomes import names_the_lost

        index, rows, samples = state.index, state.intake.digest.lines, self.batch.reading.samples
        index.drop_failed()
        index.load_done(rows, samples, self.batch.share)
        state.calls.catch_up()
        if state.settings:
            answered = (rows - index.count_needless(rows)) * samples - index.done.count(0)
            there = plural(answered, "answer")
            calls = plural(len(state.journal), "call")
            say(f"resuming {self.target}: {there} and {calls} are there and not asked for again")
        asked = rows if self.batch.limit is None else min(rows, self.batch.limit)
        total = (asked - index.count_needless(asked)) * samples
        todo = Todo(self.batch, index, asked * samples)
        if not total and self.batch.shard is not None:
            say(f"shard {self.batch.shard} holds no prompt")
        written: Written = output
        if self.in_order:
            written = InOrder(output, index, rows * samples)
        else:
            release(index, output)
        left = len(todo)
        if not left:
            written.finish()
            return 0
        for line in [*wiring.introduction(self.batch.profile), plural(left, "prompt")]:
            say(line)
        self._tell(state.intake)
        answers = Answers(todo, state.calls, written)
        goes_on = isinstance(state, BatchFolder)
        elsewhere = self.work_off is not None and not self.batch.by_jobs
        more: dict[str, Any] = {"work_off": self.work_off, "calls_elsewhere": elsewhere}
        if self.batch.by_jobs:
            from moa_cli.cli.batch.provider_jobs import batch_prices

            more["priced"] = batch_prices
        job = Job(
            self.batch.models(),
            self.batch.settings(state.intake.digest),
            state,
            answers,
            self.options,
            partial=not self.batch.strict,
            goes_on=goes_on,
            called=lambda result: result.item,
            amount=Amount(total, left, todo.sample(_SAMPLE)),
            **more,
        )
        try:
            capped = session(job, todo)
        except Exit as ended:
            index.commit()
            return ended.exit_code
        answers.finish(())
        index.commit()
        spent, done = state.journal.spent, total - left + answers.answered
        into = f" in {self.target}" if self.target != _STREAM else ""
        lost = f", {answers.lost} without some of the proposals" if answers.lost else ""
        cut = f", {answers.cut} cut (see `finish_reason`)" if answers.cut else ""
        cost = f", {cost_text(spent)}" if spent.calls else ""
        say(f"{done:,} of {plural(total, 'answer')}{into}{lost}{cut}{cost}")
        for loss, times in answers.losses.most_common(_LOSSES):
            word = " lost" if names_the_lost(loss) else ":"
            say(f"degraded, {times:,} of them{word} {loss}")
        if len(answers.losses) > _LOSSES:
            say(f"{len(answers.losses) - _LOSSES:,} other losses are in the output, under `lost`")
        if capped is not None:
            hint = " (to resume, run the same command with a higher cap)" if goes_on else ""
            say(f"{capped.message}{hint}")
            return BUDGET
        if answers.failed:
            hint = "; the same command tries them again" if goes_on else ""
            say(f"{answers.failed} failed{hint}")
        # A dead model stops a batch, also where its items have an answer without it.
        return FAILED if done < total else 0

    def _tell(self, intake: Intake) -> None:
        """Print which parts of the input are left out or have no effect."""
        if intake.bad:
            for reason in intake.reasons:
                say(f"left out: {reason}")
            more = intake.bad - len(intake.reasons)
            say(f"{plural(intake.bad, 'bad row')} left out" + f", {more:,} not listed" * (more > 0))
        if intake.unused:
            names = ", ".join(f"`{name}`" for name in intake.unused)
            say(f"the profile is used in place of what `body` sets for {names}")
