"""The loop of `moa chat`: prompt, turn, prompt."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from moa_cli.chat.commands import Leave, Outcome, Remerge, Resume, Send, perform
from moa_cli.chat.control import Stopper, interrupting
from moa_cli.chat.keeping import Kept
from moa_cli.chat.lines import stdin_lines
from moa_cli.chat.options import ChatOptions
from moa_cli.chat.session import Session
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Turn
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.events import Event
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.stream import Sink, TurnFold, deliver
from moa_cli.engine import Limits
from moa_cli.profile import Profile
from moa_cli.terminal.plain import failure_line, print_paid
from moa_cli.terminal.sinks import Show, sinks_for
from moa_cli.terminal.tty import can_redraw, cancel_on_termination, folded
from moa_cli.terminal.usage import usage_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from moa_cli.chat.input import Editor
    from moa_cli.chat.keys import TurnKeys

_FAILED, _CAPPED, _INTERRUPTED, _TERMINATED = 1, 3, 130, 143


def run(
    profile: Profile,
    options: ChatOptions,
    *,
    kept: Kept,
    clients: Callable[[], ClientPool],
    limits: Limits,
    greeting: Sequence[str],
    budget: float | None = None,
) -> int:
    """Hold a conversation until the user leaves; returns the exit code.

    kept: where the conversation is kept, and what was said in it before.
    clients: makes the clients, once the event loop runs. greeting: lines shown at the start.
    budget: USD that all turns may cost together.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty()

    async def hold() -> int:
        cancel_on_termination()
        pool = clients()
        try:
            ledger = kept.ledger(lambda text: chat.complain(text))
            told = replace(limits, ledger=ledger)
            session = Session(profile, pool, told, kept.conversation, budget)
            chat = Chat(session, options, kept)
            for line in greeting:
                chat.say(f"moa: {one_line(line)}")
            if interactive:
                from moa_cli.chat.talk import talk

                return await talk(chat)
            async with aclosing(stdin_lines()) as lines:
                return await chat.read(lines)
        finally:
            await pool.aclose()
            kept.close()

    try:
        return asyncio.run(hold())
    except asyncio.CancelledError:
        return _TERMINATED


class Chat:
    """A conversation, at a terminal or over plain lines. editor: the terminal's, if any."""

    def __init__(
        self, session: Session, options: ChatOptions | None = None, kept: Kept | None = None
    ) -> None:
        self.session = session
        self.kept = kept or Kept()
        self.options = options or ChatOptions()
        self.editor: Editor | None = None

    def say(self, text: str) -> None:
        """Show words of ours beside the conversation, on standard error."""
        lines = sanitize(text).rstrip("\n").split("\n")
        sys.stderr.write("".join(f"{folded(line, sys.stderr)}\n" for line in lines))
        sys.stderr.flush()

    def show(self, text: str) -> None:
        """Show a model's words as they are: their lines may be code."""
        sys.stderr.write(sanitize(text).rstrip("\n") + "\n")
        sys.stderr.flush()

    def remark(self, text: str) -> None:
        """Show words of ours that need not be read."""
        from rich.text import Text

        self.draw(Text(text, "dim"))

    def draw(self, drawing: RenderableType) -> None:
        """Show something that Rich draws."""
        from moa_cli.terminal.live import console_for

        console_for(sys.stderr, terminal=can_redraw(sys.stderr)).print(drawing)

    def clear_screen(self) -> None:
        """Begin with an empty screen, where there is one."""
        if self.editor is not None:
            self.editor.clear_screen()

    def complain(self, message: str, hint: str | None = None) -> None:
        """Tell what could not be done, on one line."""
        self.say(one_line(f"moa: {message} ({hint})" if hint else f"moa: {message}"))

    async def read(self, lines: AsyncIterator[str]) -> int:
        """Take each line as a prompt or a command; the code is 0 if each prompt was answered."""
        code = 0
        async for line in lines:
            outcome = self.outcome(line)
            if isinstance(outcome, Leave):
                break
            if isinstance(outcome, Resume):
                self.resume(outcome.prefix)
                continue
            turn = await self.carry_out(outcome)
            if turn is None:
                continue
            if turn.status == "interrupted":
                return _INTERRUPTED
            if turn.status != "finished":
                code = _CAPPED if turn.capped else _FAILED
        return code

    def resume(self, prefix: str) -> bool:
        """Go on with the conversation whose id begins so; whether that could be done."""
        try:
            if not prefix:
                raise UsageError("/resume needs an id here", hint="`moa history list`")
            title, conversation = self.kept.go_on(prefix)
        except MoAError as error:
            self.complain(error.message, error.hint)
            return False
        self.session.go_on(conversation)
        self.say(one_line(f"going on with {self.kept.id}: {title}"))
        return True

    def outcome(self, line: str) -> Outcome:
        """What a line asks for; a command that cannot be carried out is told of."""
        text = line.strip()
        if not text:
            return None
        if not text.startswith("/") or text.startswith("//"):
            return Send(text[1:] if text.startswith("//") else text)
        try:
            return perform(self, text)
        except MoAError as error:
            self.complain(error.message, error.hint)
            return None

    async def carry_out(self, outcome: Outcome) -> Turn | None:
        """The turn that an outcome causes, once it has ended; None if it causes none."""
        stopper = Stopper()
        try:
            match outcome:
                case Send():
                    prompt = self._with_attachments(outcome.prompt)
                    events = self.session.ask(prompt, stopper.control, outcome.aggregator)
                case Remerge():
                    prompt, events = self.session.remerge(outcome.aggregator)
                case _:
                    return None
        except MoAError as error:
            self.complain(error.message, error.hint)
            return None
        turn = await self._run(events, stopper)
        turn = replace(turn, user=prompt, stored_as=self.kept.stored_as())
        self.session.keep(turn)
        self._withdraw(self.session.replaced)
        if turn.reply and isinstance(outcome, Send):
            self.options.attachments.clear()
        self._tell(turn)
        return turn

    def _with_attachments(self, prompt: str) -> str:
        texts = "\n\n".join(self.options.attachments)
        # A prompt that is asked again has them already.
        return prompt if prompt.endswith(texts) else f"{prompt}\n\n{texts}"

    def _withdraw(self, turn: Turn | None) -> None:
        try:
            self.kept.withdraw(turn)
        except MoAError as error:
            self.complain(error.message, error.hint)

    async def _run(self, events: AsyncGenerator[Event, None], stopper: Stopper) -> Turn:
        """Show the turn. Ctrl-C stops the turn, not the program."""
        fold = TurnFold()
        recorders = self.kept.recorders(self.session.profile, self.complain)
        sinks: list[Sink] = [*sinks_for(self._how()), *recorders, stopper]
        running = asyncio.create_task(deliver(events, *sinks, fold=fold))
        stopper.watch(running)
        with ExitStack() as stack:
            keys = self._keys(stopper)
            if keys is not None:
                stack.enter_context(keys)
            stack.enter_context(interrupting(stopper.stop))
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
            if keys is not None and stopper.cancelled:
                keys.drop_sends()
            if not running.done() or _is_being_cancelled():
                # This task was cancelled itself: the program is to end.
                running.cancel()
                await asyncio.wait([running])
                raise asyncio.CancelledError
        return fold.turn() if running.cancelled() else running.result()

    def _keys(self, stopper: Stopper) -> TurnKeys | None:
        if self.editor is None:
            return None
        from moa_cli.chat.keys import TurnKeys

        return TurnKeys(self.editor.source, stopper.stop, sys.stderr)

    def _how(self) -> Show:
        options = self.options
        return Show(
            live=options.live,
            plain=options.plain,
            compact=options.compact,
            reasoning=options.reasoning,
            # Over plain lines, what is asked is not waited for by anybody.
            progress=self.editor is not None,
        )

    def _tell(self, turn: Turn) -> None:
        """What the user should know after a turn."""
        if turn.status == "interrupted":
            kept = "what had come of the reply is kept" if turn.reply else "nothing was kept"
            self.say(f"moa: interrupted; {kept}")
        elif turn.error is not None:
            print_paid(turn, sys.stderr)
            self.say(f"moa: {failure_line(turn)}")
        elif can_redraw(sys.stderr):
            self.say("")
        if turn.usage.calls:
            line = f"({usage_line(turn.usage, turn.seconds, turn.ledger)})"
            self.remark(folded(line, sys.stderr))


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
