"""A conversation at a terminal: the editor, and what happens between two turns."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from moa_cli.chat.commands import Edit, Leave, Send
from moa_cli.chat.input import Editor
from moa_cli.chat.loop import Chat
from moa_cli.conversation import Usage
from moa_cli.profile import short_name
from moa_cli.render.sanitize import one_line

__all__ = ["bar", "talk"]

_TWICE_SECONDS = 2.0


async def talk(chat: Chat) -> int:
    """Prompt and answer until the user leaves; returns the exit code."""
    editor = chat.editor = Editor(chat.session, chat.options, lambda columns: bar(chat, columns))
    warmed = asyncio.create_task(asyncio.to_thread(_preload))
    _show_past(chat)
    try:
        # Raw also between two prompts: a cooked terminal would turn an Enter typed there into
        # another key, and echo it.
        with editor.source.raw_mode():
            await _hold(chat, editor)
    finally:
        await warmed
    return 0


async def _hold(chat: Chat, editor: Editor) -> None:
    unsent = ""
    while True:
        # Parts what was said from what will be.
        chat.say("")
        line, unsent = await _line(chat, editor, unsent), ""
        if line is None:
            return
        outcome = chat.outcome(line)
        if isinstance(outcome, Leave):
            return
        if isinstance(outcome, Edit):
            with editor.source.cooked_mode():
                unsent = _edited(chat, outcome.text)
        turn = await chat.carry_out(outcome)
        if turn is not None and not turn.reply and isinstance(outcome, Send):
            unsent = f"{line}\n" if editor.typed_ahead() else line


def _show_past(chat: Chat) -> None:
    """The turns of a conversation that goes on."""
    for turn in chat.session.conversation.turns:
        chat.say("")
        chat.show(f"› {turn.user}\n\n{turn.reply}")


async def _line(chat: Chat, editor: Editor, default: str) -> str | None:
    """The next line; None to leave: Ctrl-D, or Ctrl-C twice at an empty line."""
    last_time = -_TWICE_SECONDS
    while True:
        try:
            return await editor.read(default)
        except EOFError:
            return None
        except KeyboardInterrupt:
            default = ""
            if editor.typed():
                continue
            if time.monotonic() - last_time < _TWICE_SECONDS:
                return None
            last_time = time.monotonic()
            chat.say("(Ctrl-C again, Ctrl-D or /exit leaves)")


def _edited(chat: Chat, text: str) -> str:
    """What the user's editor leaves of `text`; `text` itself if it could not be opened."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="moa-") as folder:
        file = Path(folder) / "prompt.md"
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([*shlex.split(command), str(file)], check=False)
        except (OSError, ValueError) as error:
            chat.complain(f"the editor `{command}` could not be started: {error}", "set $EDITOR")
            return text
        if done.returncode != 0:
            chat.complain(f"the editor `{command}` ended with status {done.returncode}")
            return text
        return file.read_text(encoding="utf-8", errors="replace").rstrip("\n")


def bar(chat: Chat, columns: int) -> str:
    """Profile, rounds, models, and what was used so far, as much as fits."""
    profile = chat.session.profile
    used = sum(chat.session.spent.values(), Usage())
    rounds = f"{profile.rounds} round{'s' if profile.rounds != 1 else ''}"
    count = len(profile.layer(1)) if profile.rounds else 0
    parts = [
        profile.name,
        rounds,
        f"{count} → {short_name(profile.aggregator.model)}",
        f"{used.total_tokens:,} tokens",
    ]
    if chat.options.attachments:
        parts.append(f"{len(chat.options.attachments)} attached")
    if chat.options.multiline:
        parts.append("Alt-Enter sends")
    return one_line(" · ".join(parts), max(1, columns - 1))


def _preload() -> None:
    from moa_cli.clients.openai_compatible import preload

    preload()
