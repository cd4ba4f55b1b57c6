"""What `moa ask` does once its options are read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import TERMINATED, of_turn
from moa_cli.cli.saving import Resumed, warn
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.stream import Sink, TurnFold, deliver
from moa_cli.core.text import fenced
from moa_cli.core.text_files import fenced_file, holds_bytes
from moa_cli.profile import Profile, save
from moa_cli.terminal.sinks import Show, sinks_for
from moa_cli.terminal.tty import cancel_on_termination, folded, without_echo

if TYPE_CHECKING:
    from moa_cli.chat.keeping import Kept
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.engine import Cap, Limits
    from moa_cli.store.accounts import Books

__all__ = ["Show", "compose_prompt", "foretell", "run", "save_profile", "tell_of_bytes"]

_PATIENCE = 15.0
_STDIN = Path("-")


def save_profile(profile: Profile, name: str | None, *, quiet: bool) -> None:
    """Keep the settings in force as a profile of the user's, if it is given a name."""
    if name is None:
        return
    path = save(profile, name)
    if not quiet:
        _say(f"saved profile {name}: {path}")


def _say(text: str) -> None:
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()


def tell_of_bytes(words: Sequence[str]) -> None:
    """Tell of bytes on the command line that are no letters, as a shell in another encoding gives
    them: they cannot be sent."""
    if any(map(holds_bytes, words)):
        _say("the prompt holds bytes that are not UTF-8; each is sent as `?`")


def compose_prompt(words: Sequence[str], files: Sequence[Path], *, needed: bool) -> str:
    """The prompt: the words, then each file and standard input in fences; standard input
    alone is the prompt itself. A file `-` is standard input.

    Raises UsageError if there is nothing to ask (and it is `needed`), or a file is not text.
    """
    prompt = " ".join(words).strip()
    piped = wiring.read_stdin()
    attached = ""
    parts = []
    if prompt:
        parts.append(prompt)
    if _STDIN in files:
        if not piped.strip():
            raise UsageError("-f -: standard input holds no text", hint="pipe a text into it")
        attached, piped = fenced(piped), ""
    elif piped.strip() and not prompt:
        parts.append(piped.strip("\r\n"))
        piped = ""
    parts += [attached if path == _STDIN else fenced_file(path) for path in files]
    if piped.strip():
        parts.append(fenced(piped))
    if not parts and needed:
        raise UsageError(
            "there is nothing to ask", hint='try: moa ask "your question", or pipe a text into it'
        )
    return "\n\n".join(parts)


def foretell(profile: Profile, prompt: str, resumed: Resumed, *, prompts: bool, json: bool) -> None:
    """Print what a turn would take, without the turn.

    prompts: print the calls with what each would be sent, and send nothing at all; else prices
    are asked for. json: print figures as JSON.
    """
    conversation = resumed.conversation.ask(prompt)
    if prompts:
        _print_plan(profile, conversation)
    else:
        _print_estimate(profile, conversation, json=json)


def _print_plan(profile: Profile, conversation: Conversation) -> None:
    from moa_cli.terminal.dry_run import plan

    pool = wiring.client_pool()
    known = {model: pool.known(model) for model in profile.models()}
    sys.stdout.write(plan(profile, conversation, known))


def _print_estimate(profile: Profile, conversation: Conversation, *, json: bool) -> None:
    from moa_cli.terminal import estimate

    known = asyncio.run(_facts(profile))
    if json:
        from moa_cli.core.text import dumps

        values = estimate.to_dict(profile, conversation, known)
        sys.stdout.write(dumps(values, indent=2) + "\n")
    else:
        for line in estimate.to_lines(profile, conversation, known):
            sys.stdout.write(folded(line, sys.stdout) + "\n")


async def _facts(profile: Profile) -> dict[str, ModelInfo]:
    pool = wiring.client_pool()
    try:
        return {one: await pool.facts(one, patience=_PATIENCE) for one in profile.models()}
    finally:
        await pool.aclose()


def run(
    profile: Profile,
    prompt: str,
    show: Show,
    concurrency: int | None,
    resumed: Resumed,
    books: Books,
    caps: tuple[Cap, ...],
) -> int:
    """Ask, show, and return the exit code.

    resumed: what goes before the prompt. books: where the turn is kept, if it is.
    caps: on what it may take.
    """
    if not show.quiet:
        for line in wiring.introduction(profile):
            _say(line)
    fold = TurnFold()
    try:
        with without_echo(sys.stdout, sys.stderr):
            kept = _kept(resumed, books)
            sinks = [*sinks_for(show), *(kept.recorders(profile, warn) if kept else ())]
            asked = resumed.conversation.ask(prompt)
            ledger = kept.ledger(warn) if kept else None
            limits = wiring.limits(concurrency, caps, ledger)
            turn = asyncio.run(_turn(profile, asked, sinks, fold, limits))
    except KeyboardInterrupt:
        _say("interrupted")
        turn = fold.turn()
    except asyncio.CancelledError:
        return TERMINATED
    if show.output == "json":
        from moa_cli.core.jsonl import turn_to_dict
        from moa_cli.core.text import dumps

        sys.stdout.write(dumps(turn_to_dict(turn), indent=2) + "\n")
        sys.stdout.flush()
    _tell(turn, show)
    return of_turn(turn)


def _tell(turn: Turn, show: Show) -> None:
    """What should be known after the turn."""
    if turn.error is not None:
        from moa_cli.terminal.plain import failure_line, print_paid

        if not show.show_proposals:
            print_paid(turn, sys.stderr)
        _say(failure_line(turn))
    if show.usage and turn.usage.calls:
        from moa_cli.terminal.usage import usage_line

        _say(usage_line(turn.usage, turn.seconds, turn.ledger))


def _kept(resumed: Resumed, books: Books) -> Kept | None:
    if books.store is None and books.spending is None:
        return None
    from moa_cli.chat.keeping import Kept

    return Kept(books.store, resumed.id, spending=books.spending)


async def _turn(
    profile: Profile,
    conversation: Conversation,
    sinks: Sequence[Sink],
    fold: TurnFold,
    limits: Limits,
) -> Turn:
    from moa_cli.engine import run_turn

    cancel_on_termination()
    pool = wiring.client_pool()
    try:
        events = run_turn(profile, conversation, pool, limits=limits)
        return await deliver(events, *sinks, fold=fold)
    finally:
        await pool.aclose()
