"""What `moa ask` does once its options are read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.attach import fenced, fenced_file
from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import INTERRUPTED, TERMINATED, of_turn
from moa_cli.cli.saving import Resumed, warn
from moa_cli.conversation import Conversation, Turn
from moa_cli.errors import UsageError
from moa_cli.profile import Profile, dump, save
from moa_cli.render.sanitize import one_line
from moa_cli.render.sinks import Show, sinks_for
from moa_cli.render.terminal import cancel_on_termination, folded, without_echo
from moa_cli.stream import Sink, deliver

if TYPE_CHECKING:
    from moa_cli.store import Store

__all__ = ["Show", "compose_prompt", "print_plan", "run", "save_profile"]


def save_profile(profile: Profile, name: str, *, quiet: bool) -> None:
    """Keep the settings in force as a profile of the user's."""
    path = save(profile, name)
    if not quiet:
        _say(f"saved profile {name}: {path}")


def _say(text: str) -> None:
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()


def compose_prompt(words: Sequence[str], files: Sequence[Path], *, needed: bool) -> str:
    """The prompt: the words, then each file and standard input in fences; standard input
    alone is the prompt itself.

    Raises UsageError if there is nothing to ask (and it is `needed`), or a file is no text.
    """
    prompt = " ".join(words).strip()
    piped = wiring.read_stdin()
    parts = []
    if prompt:
        parts.append(prompt)
    elif piped.strip():
        parts.append(piped.strip("\r\n"))
        piped = ""
    parts += [fenced_file(path) for path in files]
    if piped.strip():
        parts.append(fenced(piped))
    if not parts and needed:
        raise UsageError(
            "there is nothing to ask", hint='try: moa ask "your question", or pipe a text into it'
        )
    return "\n\n".join(parts)


def print_plan(profile: Profile, prompt: str, resumed: Resumed) -> None:
    """The calls that a turn would make, with what each would be sent; nothing is sent."""
    from moa_cli.render.plan import plan

    sys.stdout.write(plan(profile, resumed.conversation.ask(prompt)))


def run(
    profile: Profile,
    prompt: str,
    show: Show,
    concurrency: int | None,
    resumed: Resumed,
    store: Store | None,
) -> int:
    """Ask, show, and return the exit code.

    resumed: what goes before the prompt. store: where the turn is kept, if it is.
    """
    if not show.quiet:
        for line in wiring.introduction(profile):
            _say(line)
    try:
        with without_echo(sys.stdout, sys.stderr):
            sinks = [*sinks_for(show), *_recorders(profile, resumed, store)]
            asked = resumed.conversation.ask(prompt)
            turn = asyncio.run(_turn(profile, asked, sinks, concurrency))
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    if show.output == "json":
        from moa_cli.render.jsonl import dumps, turn_to_dict

        sys.stdout.write(dumps(turn_to_dict(turn), indent=2) + "\n")
        sys.stdout.flush()
    if turn.error is not None:
        from moa_cli.render.plain import failure_line

        _say(failure_line(turn))
    return of_turn(turn)


def _recorders(profile: Profile, resumed: Resumed, store: Store | None) -> list[Sink]:
    if store is None:
        return []
    from moa_cli.store import Recorder

    return [Recorder(store, resumed.id, dump(profile), warn)]


async def _turn(
    profile: Profile, conversation: Conversation, sinks: Sequence[Sink], concurrency: int | None
) -> Turn:
    from moa_cli.engine import run_turn

    cancel_on_termination()
    pool = wiring.client_pool()
    try:
        events = run_turn(profile, conversation, pool, limits=wiring.limits(concurrency))
        return await deliver(events, *sinks)
    finally:
        await pool.aclose()
