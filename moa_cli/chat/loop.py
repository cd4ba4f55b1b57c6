"""The loop of `moa chat`: prompt, turn, prompt."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from moa_cli.chat.commands import Leave, Send, perform
from moa_cli.chat.session import Session
from moa_cli.clients.providers import ClientPool
from moa_cli.conversation import Turn
from moa_cli.engine import Limits
from moa_cli.errors import MoAError
from moa_cli.profile import Profile
from moa_cli.render.plain import failure_line, usage_line
from moa_cli.render.sanitize import one_line, sanitize
from moa_cli.render.sinks import Show, sinks_for
from moa_cli.render.terminal import cancel_on_termination, folded, without_echo
from moa_cli.stream import TurnFold, deliver

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

__all__ = ["Chat", "run"]

_FAILED, _INTERRUPTED, _TERMINATED = 1, 130, 143


def run(
    profile: Profile, *, clients: Callable[[], ClientPool], limits: Limits, greeting: Sequence[str]
) -> int:
    """Hold a conversation until the user leaves; returns the exit code.

    clients: makes the clients, once the event loop runs. greeting: lines shown at the start.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty()

    async def hold() -> int:
        cancel_on_termination()
        pool = clients()
        try:
            chat = Chat(Session(profile, pool, limits))
            for line in greeting:
                chat.say(folded(f"moa: {one_line(line)}", sys.stderr))
            if interactive:
                return await chat.talk()
            async with aclosing(_lines()) as lines:
                return await chat.read(lines)
        finally:
            await pool.aclose()

    try:
        return asyncio.run(hold())
    except asyncio.CancelledError:
        return _TERMINATED


async def _lines() -> AsyncGenerator[str, None]:
    """The lines of a standard input that is no terminal."""
    if sys.stdin is None:
        return
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def put(line: str | None) -> None:
        # The loop is closed if the program ends while this waits for input.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lines.put_nowait, line)

    # A daemon on the bare descriptor: no one waits for it, and it holds no lock at the end.
    reader = threading.Thread(target=_read_lines, args=(sys.stdin.fileno(), put), daemon=True)
    reader.start()
    while (line := await lines.get()) is not None:
        yield line.rstrip("\r")


def _read_lines(descriptor: int, put: Callable[[str | None], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    held, data = "", b"-"
    while data:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            data = b""
        *whole, held = (held + decoder.decode(data, final=not data)).split("\n")
        for line in whole:
            put(line)
    if held:
        put(held)
    put(None)


class Chat:
    """A conversation at a terminal, or over plain lines."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def say(self, text: str) -> None:
        """Show `text` beside the conversation, on standard error."""
        lines = sanitize(text).rstrip("\n").split("\n")
        sys.stderr.write("".join(f"{folded(line, sys.stderr)}\n" for line in lines))
        sys.stderr.flush()

    async def read(self, lines: AsyncIterator[str]) -> int:
        """Take each line as a prompt or a command; the code is 0 if each prompt was answered."""
        code = 0
        async for line in lines:
            prompt = self._prompt_of(line)
            if prompt is None:
                break
            if prompt:
                turn = await self.turn(prompt)
                if turn.status == "interrupted":
                    return _INTERRUPTED
                code = code if turn.status == "finished" else _FAILED
        return code

    async def talk(self) -> int:
        """Prompt and answer until the user leaves."""
        from moa_cli.chat.input import prompt_session

        self.say("/help lists the commands, Ctrl-D leaves.")
        editor = prompt_session(self.session)
        warmed = asyncio.create_task(asyncio.to_thread(_preload))
        unsent = ""
        try:
            while True:
                # Parts what was said from what will be.
                self.say("")
                line, unsent = await self._line(editor, unsent), ""
                if line is None:
                    return 0
                prompt = self._prompt_of(line)
                if prompt is None:
                    return 0
                if prompt and not (await self.turn(prompt)).reply:
                    unsent = line
        finally:
            await warmed

    async def _line(self, editor: PromptSession[str], default: str) -> str | None:
        """The next line; None at the end. Ctrl-C empties the line."""
        while True:
            try:
                return await editor.prompt_async("› ", default=default)
            except KeyboardInterrupt:
                default = ""
                self.say("(Ctrl-D or /exit leaves)")
            except EOFError:
                return None

    def _prompt_of(self, line: str) -> str | None:
        """The prompt that a line asks for, "" if nothing is to be asked, None to leave."""
        text = line.strip()
        if text.startswith("//"):
            return text[1:]
        if not text.startswith("/"):
            return text
        try:
            outcome = perform(self, text)
        except MoAError as error:
            self._complain(error.message, error.hint)
            return ""
        if isinstance(outcome, Leave):
            return None
        return outcome.prompt if isinstance(outcome, Send) else ""

    def _complain(self, message: str, hint: str | None = None) -> None:
        self.say(one_line(f"moa: {message} ({hint})" if hint else f"moa: {message}"))

    async def turn(self, prompt: str) -> Turn:
        """Ask `prompt`, show the turn, and keep it. Ctrl-C ends the turn, not the program."""
        fold = TurnFold()
        events = self.session.ask(prompt)
        running = asyncio.create_task(deliver(events, *sinks_for(Show()), fold))
        with without_echo(sys.stdout, sys.stderr), _interrupting(running):
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
            if not running.done() or _is_being_cancelled():
                # This task was cancelled itself: the program is to end.
                running.cancel()
                await asyncio.wait([running])
                raise asyncio.CancelledError
        turn = fold.turn() if running.cancelled() else running.result()
        turn = replace(turn, user=prompt)
        self.session.keep(turn)
        self._tell(turn)
        return turn

    def _tell(self, turn: Turn) -> None:
        """What the user should know after a turn."""
        if turn.status == "interrupted":
            kept = "what had come of the reply is kept" if turn.reply else "nothing was kept"
            self.say(f"moa: interrupted; {kept}")
        elif turn.error is not None:
            self.say(f"moa: {failure_line(turn)}")
        else:
            usage = turn.usage
            tokens = usage.prompt_tokens, usage.completion_tokens
            self.say(f"({usage_line(usage.calls, *tokens, turn.seconds)})")


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _interrupting:
    """While inside, Ctrl-C cancels `task` instead of the program."""

    def __init__(self, task: asyncio.Task[Turn]) -> None:
        self._task = task

    def __enter__(self) -> None:
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._task.cancel)

    def __exit__(self, *exception: object) -> None:
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


def _preload() -> None:
    from moa_cli.clients.openai_compatible import preload

    preload()
