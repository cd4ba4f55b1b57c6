"""`moa ask`: one prompt, one reply."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import TERMINATED, of_turn
from moa_cli.cli.going_on import take_up
from moa_cli.cli.options import (
    Cid,
    Continue,
    Display,
    Save,
    TurnCaps,
    TypedMixture,
    option_of,
    takes_profile,
    typed_or,
)
from moa_cli.cli.output import print_json, print_lines, say
from moa_cli.cli.saving import left_turn, not_sent, open_books, resume
from moa_cli.core.errors import UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.chat.keeping import SavedConversation
    from moa_cli.core.conversation import Conversation, Turn
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.engine import Limits
    from moa_cli.engine.structured.format import ResponseFormat
    from moa_cli.observability.commands import CommandTraces
    from moa_cli.profile import Profile
    from moa_cli.terminal.sinks import Show

_PATIENCE = 15.0
# With --quiet, the notice on a silent standard input comes only after this many seconds, because
# many programs are slow to write.
_QUIET_SECONDS = 10.0
_STDIN = Path("-")


@takes_profile
def ask(
    concurrency: int | None,
    typed: TypedMixture,
    *,
    prompt: Annotated[
        list[str] | None,
        Argument(metavar="PROMPT", help="The question; standard input is added to it."),
    ] = None,
    file: Annotated[
        list[Path] | None,
        Option(
            "-f",
            "--file",
            metavar="PATH",
            help="Add files: texts, images, PDF files, folders, patterns; - is standard input.",
        ),
    ] = None,
    no_stdin: Annotated[
        bool, Option("-n", "--no-stdin", help="Do not read standard input.")
    ] = False,
    yes: Annotated[
        bool, Option("-y", "--yes", help="Send files of any size without asking.")
    ] = False,
    allow_secrets: Annotated[
        bool,
        Option("--allow-secrets", help="Send files that seem to hold secrets without asking."),
    ] = False,
    json: Annotated[
        bool, Option("--json", help="Print one JSON object: reply, proposals, usage.")
    ] = False,
    output: Annotated[
        Literal["text", "json", "jsonl"],
        Option(help="What to print; jsonl is the stream of events."),
    ] = "text",
    show_proposals: Annotated[
        bool, Option("--show-proposals", help="Print each proposal in full, on stderr.")
    ] = False,
    no_stream: Annotated[
        bool, Option("--no-stream", help="Print the reply when it is complete.")
    ] = False,
    display: Display,
    quiet: Annotated[
        bool,
        Option(
            "-q", "--quiet", help="Print only errors on stderr, and a warning if a reply was cut."
        ),
    ] = False,
    verbose: Annotated[
        bool, Option("-v", "--verbose", help="Print each step and the usage on stderr.")
    ] = False,
    usage: Annotated[bool | None, option_of("usage", "-u", "--usage/--no-usage")] = None,
    remerge: Annotated[
        bool,
        Option(
            "--remerge",
            help="Write a new reply from the last turn's proposals; no proposer is asked again.",
        ),
    ] = False,
    schema: Annotated[
        str | None,
        Option(metavar="FILE", help="Print JSON that conforms to the JSON Schema in this file."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print the calls and exact prompts; send nothing.")
    ] = False,
    estimate: Annotated[
        bool,
        Option("--estimate", help="Print an estimate of calls, tokens and cost; send no prompt."),
    ] = False,
    caps: TurnCaps,
    save_profile: Annotated[
        str | None, Option(metavar="NAME", help="Save the settings in effect as a profile.")
    ] = None,
    continue_: Continue = False,
    cid: Cid = None,
    save: Save = None,
) -> None:
    """Ask once, and print the reply."""
    from moa_cli.chat.keeping import SavedConversation
    from moa_cli.cli.composing import FileQuestions, compose_prompt, read_schema
    from moa_cli.cli.streams import SILENT_SECONDS
    from moa_cli.core.conversation import Conversation
    from moa_cli.core.files.text import holds_bytes
    from moa_cli.observability.commands import CommandTraces
    from moa_cli.terminal.sinks import Show

    tell: Callable[[str], None] = (lambda _: None) if quiet else say
    if prompt == ["-"]:
        # As for other programs, this is standard input.
        prompt = []
    if json:
        if output != "text":
            raise UsageError("--json and --output cannot be used together")
        output = "json"
    if (dry_run and output != "text") or (estimate and output == "jsonl"):
        raise UsageError("--dry-run prints text, and --estimate text or JSON (--json)")
    response_format = None if schema is None else read_schema(schema)
    show = display.over(
        Show(
            output=output,
            structured=response_format is not None,
            stream=not no_stream,
            quiet=quiet,
            verbose=verbose,
            usage=verbose or typed_or(usage, wiring.config().usage),
            show_proposals=show_proposals,
            progress=display.live is False,
        )
    )
    if remerge and (prompt or file or dry_run or estimate):
        raise UsageError(
            "--remerge reuses the last turn's proposals: it takes no prompt, --file, --dry-run"
            " or --estimate"
        )
    left = left_turn(cid) if remerge else None
    past = left.past if left else resume(cid) if continue_ or cid is not None else None
    profile, *lines = take_up(past, typed) if past else (typed.resolved(),)
    show = replace(show, report=profile.report)
    if save_profile is not None:
        from moa_cli.profile import save as save_as

        path = save_as(profile, save_profile)
        tell(f"saved profile {save_profile}: {path}")
    if left is not None:
        asked = left.asked
    else:
        after = _QUIET_SECONDS if quiet else SILENT_SECONDS
        piped = _piped(prompt or (), file or (), tell, wanted=not no_stdin, after=after)
        asking = FileQuestions(
            profile,
            tell,
            yes=yes or dry_run or estimate,
            allow_secrets=allow_secrets or dry_run or estimate,
        )
        text, parts = compose_prompt(
            prompt or [], file or [], piped, asking, needed=save_profile is None
        )
        if not text:
            return
        added = [] if _STDIN in (file or ()) else piped.splitlines()
        if added and (prompt or file):
            # Otherwise a loop of the shell that reads the same pipe would end early without a
            # reason.
            tell(f"{plural(len(added), 'line')} of standard input added (-n: do not read it)")
        if any(map(holds_bytes, prompt or ())):
            # In a locale with another encoding, arguments may hold bytes that are not UTF-8. JSON
            # cannot carry them.
            tell("the prompt holds bytes that are not UTF-8; each is sent as `?`")
        asked = (past.conversation if past else Conversation()).ask(text, parts)
        for line in (*lines, *(not_sent(past) if past else ())):
            tell(line)
    if dry_run or estimate:
        told = profile if response_format is None else response_format.over(profile)
        if estimate and not dry_run:
            _print_estimate(told, asked, json=output == "json")
            return
        from moa_cli.terminal.estimate import plan

        pool = wiring.client_pool()
        known = {model: pool.known(model) for model in profile.models()}
        sys.stdout.write(plan(told, asked, known, wiring.assumed_context()))
        return
    books = open_books(save=save)
    kept = SavedConversation(
        books.store,
        past.identity if past else None,
        past.conversation if past else None,
        books.spending,
    )
    limits = wiring.limits(
        concurrency, caps.budgets(books.spending, one_turn=True), kept.ledger(say)
    )
    if output == "json" or (no_stream and output == "text"):
        limits = replace(limits, reply_held=True)
    merging = left.turn if left else None
    with closing(CommandTraces("ask", os.environ, tell)) as traces:
        code = _run(profile, asked, show, kept, limits, merging, response_format, traces)
    raise Exit(code)


def _piped(
    words: Sequence[str],
    files: Sequence[Path],
    tell: Callable[[str], None],
    *,
    wanted: bool,
    after: float,
) -> bytes:
    """The part of standard input that is for this command. Raises UsageError.

    words, files: of the prompt. wanted: whether it is read at all. after: see `standard_input`.
    """
    from moa_cli.cli.streams import is_read_by_another, read_prompt

    named = _STDIN in files
    if not wanted:
        if named:
            raise UsageError("--no-stdin and -f - cannot be used together")
        return b""
    prompted = bool(files or " ".join(words).strip())
    if prompted and not named and is_read_by_another():
        tell(
            "standard input is not read, because another program reads it too; to add the"
            " rest of it, pass -f -"
        )
        return b""
    return read_prompt(say, prompted=prompted, named=named, after=after)


def _print_estimate(profile: Profile, conversation: Conversation, *, json: bool) -> None:
    """Print an estimate of a turn. The only requests are those for prices."""
    import asyncio

    from moa_cli.terminal import estimate
    from moa_cli.terminal.tty import folded

    async def facts() -> dict[str, ModelInfo]:
        async with aclosing(wiring.client_pool()) as pool:
            return {
                model: await pool.facts(model, patience=_PATIENCE) for model in profile.models()
            }

    known = asyncio.run(facts())
    if json:
        print_json(estimate.to_dict(profile, conversation, known, wiring.assumed_context()))
    else:
        lines = estimate.to_lines(profile, conversation, known, wiring.assumed_context())
        print_lines(folded(line, sys.stdout) for line in lines)


def _run(
    profile: Profile,
    asked: Conversation,
    show: Show,
    kept: SavedConversation,
    limits: Limits,
    merging: Turn | None,
    response_format: ResponseFormat | None,
    traces: CommandTraces,
) -> int:
    """Answer and show the open turn of a conversation, and return the exit code.

    merging: the turn from whose proposals the reply is written; None asks the proposers.
    response_format: the format of the reply, if it must be JSON.
    """
    import asyncio

    from moa_cli.core.stream import TurnFold
    from moa_cli.engine import run_turn
    from moa_cli.engine.merging import mergeable
    from moa_cli.terminal.accessible import in_words
    from moa_cli.terminal.sinks import sinks_for
    from moa_cli.terminal.stopping import Stopper
    from moa_cli.terminal.suspension import refresh
    from moa_cli.terminal.tty import cancel_on_termination, run_loop, turn_keys, without_echo

    fold = TurnFold()
    proposals = mergeable(merging.proposals) if merging is not None else ()

    async def answer() -> Turn:
        cancel_on_termination()
        stopper = Stopper()
        # The recorders come first: a proposal is stored before it is shown.
        recorders = kept.recorders(profile, say, merging=merging)
        async with aclosing(wiring.client_pool(headers=traces.headers)) as pool:
            sinks = [*recorders, *sinks_for(show, stopper.hint), *traces.sinks(pool.providers)]
            events = run_turn(
                profile,
                asked,
                pool,
                control=stopper.control,
                limits=limits,
                references=proposals if merging else None,
                reviews=merging.reviews if merging else (),
                response_format=response_format,
            )
            with turn_keys({"escape": stopper.stop, "c-l": refresh}):
                turn = await stopper.run(events, *sinks, fold=fold)
            for line in () if show.quiet else pool.news():
                say(line)
            return turn

    if not show.quiet:
        who, *notices = wiring.introduction(profile)
        if merging:
            from moa_cli.profile import closing_text

            names = ", ".join(f"{p.proposer}{' unfinished' * p.unfinished}" for p in proposals)
            who = f"{plural(len(proposals), 'proposal')} ({names}) → {closing_text(profile)}"
        say(in_words(who) if show.accessible else who)
        for notice in notices:
            say(notice)
    if show.show_proposals and proposals:
        from moa_cli.terminal.plain import Proposals

        Proposals(sys.stderr, ruled=not show.accessible).print_layer(proposals)
    try:
        with without_echo(sys.stdout, sys.stderr):
            turn = run_loop(answer())
    except KeyboardInterrupt:
        fold.close()
        turn = fold.turn()
    except asyncio.CancelledError:
        return TERMINATED
    if merging is not None:
        turn = turn.with_proposals(merging.proposals)
        number = kept.stored_as()
        if number is not None and number != merging.stored_as:
            # Only one of the two turns stays: the new one if it has a reply, else the old one.
            kept.withdraw(merging if turn.reply else replace(turn, stored_as=number))
    finished = turn.status == "finished"
    if show.output == "json":
        from moa_cli.core.jsonl import turn_to_dict

        told = turn_to_dict(turn)
        if show.structured:
            from moa_cli.engine.structured.format import read_json

            told["parsed"] = read_json(turn.reply) if turn.reply and finished else None
        print_json(told)
    elif show.structured and show.output == "text" and finished:
        from moa_cli.core.text import harmless_json

        print_lines([harmless_json(turn.reply or "")])
    _tell(turn, show, saved=kept.store is not None)
    return of_turn(turn)


def _tell(turn: Turn, show: Show, *, saved: bool) -> None:
    """Print on standard error how a turn ended, and how the user can continue."""
    from moa_cli.engine.merging import kept_text

    left = kept_text(turn, "`moa ask --remerge`") if saved and not show.quiet else ""
    if turn.status == "interrupted":
        say(f"interrupted; {left}" if left else "interrupted")
    elif turn.error is not None:
        from moa_cli.terminal.plain import failure_line, print_paid

        if not show.show_proposals:
            print_paid(turn, sys.stderr)
        say(failure_line(turn))
        if left:
            say(left)
    elif show.quiet:
        from moa_cli.core.outcomes import cut_of

        if cut := cut_of(turn):
            say(f"the reply was {cut}")
    if show.usage and turn.usage.calls:
        from moa_cli.terminal.usage import usage_line

        say(usage_line(turn.usage, turn.seconds, turn.ledger))
