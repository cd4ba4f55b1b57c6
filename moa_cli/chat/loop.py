"""The loop of `moa chat`: prompt, turn, prompt.

This part works with and without a terminal. `chat.talk` adds the editor of a terminal.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from moa_cli.chat import outcomes
from moa_cli.chat.attaching import attach, current_files, with_mentioned
from moa_cli.chat.commands.registry import ChatOptions, begins_with_path, perform
from moa_cli.chat.keeping import Past, SavedConversation
from moa_cli.chat.keys import TurnKeys
from moa_cli.chat.lines import stdin_lines
from moa_cli.chat.model_picker import fitting, model_names, model_table
from moa_cli.chat.named_files import pasted_files
from moa_cli.chat.outcomes import Outcome
from moa_cli.chat.session import Session
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Part, Turn
from moa_cli.core.errors import MoAError, ProfileError, UsageError
from moa_cli.core.events import Event
from moa_cli.core.files.attachments import prompt_of
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.stream import Sink, TurnFold
from moa_cli.core.text import plural, prompt_text, with_hint
from moa_cli.engine import Limits
from moa_cli.engine.merging import kept_text
from moa_cli.models.candidates import LIST_PATIENCE, has_candidates
from moa_cli.observability.commands import CommandTraces
from moa_cli.profile import Profile
from moa_cli.terminal.accessible import in_words, print_in_order
from moa_cli.terminal.board.screen import terminal_size
from moa_cli.terminal.plain import failure_line, print_paid
from moa_cli.terminal.programs import page
from moa_cli.terminal.sinks import sinks_for
from moa_cli.terminal.stopping import Stopper
from moa_cli.terminal.suspension import refresh, suspend
from moa_cli.terminal.transcript import Passage, drawn_passages
from moa_cli.terminal.tty import can_redraw, cancel_on_termination, folded, run_loop
from moa_cli.terminal.usage import usage_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from moa_cli.chat.input import Editor

# See `Chat.own_mixture`.
OwnMixture = Callable[[Past], tuple[Profile | None, str]]
# The width of the table of models. It is wide enough for every name.
_TABLE_COLUMNS = 120
# If earlier turns take this share of a model's room for them, or more, a line warns the user.
_NEARLY_FULL = 0.8
_FAILED, _CAPPED, _INTERRUPTED, _TERMINATED = 1, 3, 130, 143


def run(
    profile: Profile,
    options: ChatOptions,
    *,
    kept: SavedConversation,
    clients: Callable[[], ClientPool],
    limits: Limits,
    greeting: Sequence[str],
    traces: CommandTraces,
    own_mixture: OwnMixture,
) -> int:
    """Hold a conversation until the user leaves. Returns the exit code.

    kept: the earlier turns, and the place where the conversation is saved. clients: makes the
    clients; called when the event loop runs. limits: of each turn. greeting: lines to show at the
    start. traces: writes the traces of turns. own_mixture: see `Chat`.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty()

    async def hold() -> int:
        cancel_on_termination()
        with closing(kept):
            async with aclosing(clients()) as pool:
                told = replace(limits, ledger=kept.ledger(lambda text: chat.complain(text)))
                session = Session(profile, pool, told, kept.conversation)
                chat = Chat(session, options, kept, own_mixture, pool, traces)
                for line in greeting:
                    chat.say(f"moa: {one_line(in_words(line) if options.accessible else line)}")
                if interactive:
                    from moa_cli.chat.talk import talk

                    await talk(chat, lambda: pool.warm(chat.session.profile.models()))
                    if (command := kept.way_back()) is not None:
                        chat.say(f"to continue: {command}")
                    return 0
                async with aclosing(stdin_lines(chat.complain)) as lines:
                    return await chat.read(lines)

    try:
        return run_loop(hold())
    except asyncio.CancelledError:
        return _TERMINATED


@dataclass(eq=False)
class Chat:
    """A conversation at a terminal, or over plain lines.

    own_mixture: returns the mixture that a past conversation was last held with, and words that
    name it. None in place of a mixture means that the present one stays. It raises ProfileError if
    the mixture cannot be used any more. models: the clients of all known models. traces: writes the
    traces of turns. editor: None without a terminal.
    """

    session: Session
    options: ChatOptions = field(default_factory=ChatOptions)
    kept: SavedConversation = field(default_factory=SavedConversation)
    own_mixture: OwnMixture = lambda past: (None, "")
    models: ClientPool | None = None
    traces: CommandTraces | None = None
    editor: Editor | None = None
    _told_of_context: bool = False

    def say(self, text: str) -> None:
        """Show a message of the program on standard error, folded to the width of the terminal."""
        lines = sanitize(text).rstrip("\n").split("\n")
        sys.stderr.write("".join(f"{folded(line, sys.stderr)}\n" for line in lines))
        sys.stderr.flush()

    def show(self, text: str) -> None:
        """Show a text of a model without folding its lines, which may be code."""
        sys.stderr.write(sanitize(text).rstrip("\n") + "\n")
        sys.stderr.flush()

    def page(self, passages: Sequence[Passage]) -> None:
        """Show passages, drawn, and in the user's pager if they are longer than the screen. Where
        nothing can be drawn, they are shown as plain text."""
        if not self._draws:
            for kind, text in passages:
                (self.show if kind == "text" else self.say)(text)
            return
        self._page(self._drawn(passages))

    def recall(self, passages: Sequence[Passage]) -> None:
        """Show passages of earlier turns in the same form as when they came."""
        if self._draws:
            sys.stderr.write("".join(f"{line}\n" for line in self._drawn(passages)))
            sys.stderr.flush()
            return
        for _, text in passages:
            self.show(text)

    @property
    def _draws(self) -> bool:
        plain = self.options.plain or self.options.accessible
        return not plain and can_redraw(sys.stderr)

    def _drawn(self, passages: Sequence[Passage]) -> list[str]:
        from moa_cli.terminal.board.live import color_of, console_for, reply_width

        look = self.options.look
        color = color_of(console_for(sys.stderr, look=look))
        width = reply_width(terminal_size(sys.stderr)[0])
        return drawn_passages(passages, width=width, color=color, look=look)

    def _page(self, lines: Sequence[str]) -> None:
        if trouble := page(lines, sys.stderr):
            self.say(f"moa: {trouble}")

    def remark(self, text: str) -> None:
        """Show a less important message, dimmed."""
        from rich.text import Text

        self._console().print(Text(folded(text, sys.stderr), "dim"))

    def draw(self, drawing: RenderableType) -> None:
        """Show something that Rich draws, in the user's pager if it is longer than the screen."""
        if self.options.accessible:
            from moa_cli.terminal.board.live import console_for

            print_in_order(console_for(sys.stderr, terminal=False), drawing)
            return
        console = self._console()
        if not can_redraw(sys.stderr):
            console.print(drawing)
            return
        from moa_cli.terminal.line import to_lines

        self._page(to_lines(console, drawing, terminal_size(sys.stderr)[0]))

    def _console(self) -> Console:
        from moa_cli.terminal.board.live import console_for

        terminal = can_redraw(sys.stderr)
        return console_for(sys.stderr, terminal=terminal, look=self.options.look)

    def clear_screen(self) -> None:
        """Clear the screen, if there is one."""
        if self.editor is not None:
            self.editor.clear_screen()

    def complain(self, message: str, hint: str | None = None) -> None:
        """Show an error, and its hint, on one line."""
        self.say(one_line(f"moa: {with_hint(message, hint)}"))

    async def read(self, lines: AsyncIterator[str]) -> int:
        """Carry out each line as a prompt or a command. Returns the exit code."""
        code = 0
        async for line in lines:
            turn = None
            match self.outcome(line):
                case outcomes.Leave():
                    break
                case outcomes.Question() as question:
                    # Without a terminal, the user cannot be asked.
                    self.complain(question.text, f"not sent; {question.hint}")
                case outcomes.Resume(prefix):
                    self.resume(prefix)
                case outcomes.ChooseModels(typed):
                    self.list_models(typed)
                case outcomes.EditMessage():
                    self.complain("to edit a message, the chat needs a terminal")
                case outcome:
                    turn = await self.carry_out(outcome)
            if turn is None:
                continue
            if turn.status == "interrupted":
                return _INTERRUPTED
            if turn.status != "finished":
                code = _CAPPED if turn.capped else _FAILED
        return code

    def resume(self, prefix: str) -> Past | None:
        """Continue the conversation whose id begins with `prefix`, and return it. If that fails,
        this shows why, and returns None."""
        try:
            if not prefix:
                raise UsageError("/resume needs an id here", hint="`moa history list`")
            past = self.kept.go_on(prefix)
        except MoAError as error:
            self.complain(error.message, error.hint)
            return None
        self.session.go_on(past.conversation)
        self.say(one_line(f"continuing {past.identity}: {past.title}"))
        self._take_up_mixture(past)
        return past

    def _take_up_mixture(self, past: Past) -> None:
        """Use the mixture that the conversation was last held with, and show a line about it."""
        try:
            profile, words = self.own_mixture(past)
            if profile is not None:
                self.session.use(profile)
        except ProfileError as error:
            self.complain(
                f"its own settings cannot be used: {error.problem}",
                f"profile {self.session.profile.name} continues it; /profile NAME changes"
                " the profile",
            )
            return
        if profile is not None:
            self.say(one_line(f"with {words}; /profile NAME changes it"))
        elif past.profile != self.session.profile.name:
            self.say(one_line(f"with profile {self.session.profile.name}, not {past.profile}"))

    def list_models(self, typed: str) -> None:
        """Show the models that match the typed words, for a chat that cannot show a list to choose
        from."""
        if self.models is None:
            self.say(self.session.models_text())
            return
        names = fitting(model_names(self.session.profile, self.models.listed()), typed)
        if not names:
            self.complain("no listed model matches", "`moa models` reads the lists anew")
            return
        spoken = self.options.accessible
        self.show("\n".join(model_table(names, self.models, _TABLE_COLUMNS, spoken=spoken)))
        self.say("/aggregator NAME and /add NAME take one")

    def outcome(self, line: str) -> Outcome:
        """The outcome of a line. If a command fails, this shows why."""
        text = prompt_text(line)
        files, rest = pasted_files(text)
        if files:
            # The files stood on lines of their own. The other lines are handled after them.
            then, again = partial(self.outcome, rest), outcomes.TypeAgain(text)
            names = [str(path) for path in files]
            attached = partial(attach, self, names, then=then, otherwise=lambda: again)
            return self._answered(attached, again)
        if "\n" not in text and text.lstrip().startswith("/"):
            text = text.strip()
        if text.startswith("/") and not text.startswith("//"):
            # A line that begins with a path is probably text, so after an error it comes back with
            # a slash more, as a prompt.
            otherwise = outcomes.TypeAgain(f"/{text}") if begins_with_path(text) else None
            return self._answered(partial(perform, self, text), otherwise)
        return self._prompt(text)

    def _prompt(self, text: str) -> Outcome:
        """The outcome of a prompt, which may mention files."""
        if not text.strip():
            return None
        text = text[1:] if text.startswith("//") else text
        # Without a terminal, mentions are plain text: the lines of a pipe may come from somebody
        # else, who must not choose files of this machine.
        if "@" not in text or self.editor is None:
            return outcomes.Send(text)
        return with_mentioned(self, text)

    def answer(self, question: outcomes.Question, *, yes: bool) -> Outcome:
        """The outcome of a question and its answer. If that fails, this shows why."""
        return self._answered(question.yes if yes else question.no, None)

    def _answered(self, made: Callable[[], Outcome], otherwise: Outcome) -> Outcome:
        """The outcome that `made` returns. If `made` fails, this shows why, and returns
        `otherwise`."""
        try:
            return made()
        except MoAError as error:
            self.complain(error.message, error.hint)
            return otherwise

    async def carry_out(self, outcome: Outcome) -> Turn | None:
        """Run the turn that an outcome asks for. Returns the turn; None if there was none."""
        key = "Esc" if self.editor is not None else "Ctrl-C"
        if self.editor is None and isinstance(outcome, outcomes.Send | outcomes.Remerge):
            self._tell_changes()
        if isinstance(outcome, outcomes.MakeReport):
            return await self._report(Stopper(key, replied=True))
        if isinstance(outcome, outcomes.SumUp):
            return await self._sum_up(outcome.focus, key)
        if isinstance(outcome, outcomes.Edit):
            if self.editor is None:
                self.complain(f"{'/compact edit' if outcome.summary else '/edit'} needs a terminal")
            return None
        stopper = Stopper(key)
        try:
            match outcome:
                case outcomes.Send(prompt, aggregator, parts, again):
                    prompt, parts = self._with_attachments(prompt, parts, again=again)
                    events = self.session.ask(prompt, stopper.control, aggregator, parts)
                case outcomes.Remerge(strategy, aggregator):
                    control = stopper.control
                    prompt, events = self.session.remerge(control, strategy, aggregator)
                case _:
                    await self._choose()
                    return None
        except MoAError as error:
            # `/retry` has taken the last turn back.
            self.session.put_back()
            self.complain(error.message, error.hint)
            return None
        turn = await self._run(events, stopper)
        again = self.session.asks_again and not turn.reply
        turn = replace(turn, user=prompt, stored_as=self.kept.stored_as(), asks_again=again)
        self.session.keep(turn)
        try:
            for replaced in self.session.replaced:
                self.kept.withdraw(replaced)
        except MoAError as error:
            self.complain(error.message, error.hint)
        if turn.reply and isinstance(outcome, outcomes.Send):
            self.options.attachments[:] = [file for file in self.options.attachments if file.kept]
        self._tell(turn)
        self._tell_changes()
        return turn

    def _tell_changes(self) -> None:
        """Show what other processes did to the conversation. With plain lines, the user cannot
        choose what to do, so this is shown only once, and the conversation goes on."""
        changes = self.kept.changes(accept=self.editor is None)
        if changes:
            self.complain(
                f"{changes}, which the models in this chat do not see; `/resume"
                f" {self.kept.id}` reads it again, /fork continues in a copy without it"
            )

    async def _report(self, stopper: Stopper) -> Turn | None:
        """Make and show a report on the last turn, and store it with that turn. Returns the turn
        that made the report; None if there is nothing to report on."""
        try:
            events = self.session.report(stopper.control)
        except MoAError as error:
            self.complain(error.message, error.hint)
            return None
        turn = await self._run(events, stopper, reporting=self.session.last)
        self.session.keep_report(turn)
        if turn.report is None:
            why = turn.lost[-1] if turn.lost else "interrupted"
            if turn.error is not None and turn.error.kind == "BudgetReached":
                why = turn.error.message
            self.complain(f"there is no report: {why}")
        self._tell_usage(turn)
        return turn

    async def _sum_up(self, focus: str, key: str) -> Turn | None:
        """Sum up all turns but the last, in several steps if the aggregator has no room for all of
        them at once. Returns the last turn that made a summary; None if there is nothing to sum
        up."""
        turn: Turn | None = None
        summed_up = 0
        while True:
            stopper = Stopper(key)
            try:
                count, events = self.session.sum_up(focus, stopper.control)
            except MoAError as error:
                if turn is None:
                    self.complain(error.message, error.hint)
                break
            earlier = self.session.conversation.first_sent
            self.say(f"summary of {plural(earlier + count, 'turn')}:")
            turn = await self._run(events, stopper, summing_up=True)
            if turn.status != "finished" or not turn.reply:
                self.session.count(turn)
                why = failure_line(turn) if turn.error is not None else "interrupted"
                self.complain(f"there is no summary: {why}")
                self._tell_usage(turn)
                break
            # Each step also sums up the summary of the step before, so that one is replaced.
            changed = self.session.keep_summary(turn, count, replaces=summed_up > 0)
            if not changed:
                self.complain("there is no summary: the model returned an empty one")
                self._tell_usage(turn)
                break
            summed_up = earlier + count
            try:
                self.kept.rewrite(*changed)
            except MoAError as error:
                self.complain(f"the summary is not saved: {error.message}", error.hint)
            if not sys.stdout.isatty():
                self.show(self.session.conversation.summary)
            elif can_redraw(sys.stderr):
                self.say("")
            self._tell_usage(turn)
        if summed_up:
            self.say(
                f"from now on, the models get the summary in place of {plural(summed_up, 'turn')};"
                " /compact edit changes it, /compact off removes it"
            )
        return turn

    def write_summary(self, text: str) -> None:
        """Replace the summary by a text that the user has edited. An empty text removes the
        summary."""
        try:
            self.kept.rewrite(self.session.write_summary(text))
        except MoAError as error:
            self.complain(error.message, error.hint)
            return
        self.say("the summary is " + ("changed" if text.strip() else "removed"))

    def _with_attachments(
        self, prompt: str, parts: tuple[Part, ...], *, again: bool
    ) -> tuple[str, tuple[Part, ...]]:
        """The prompt and its parts, with the attached files. Raises UsageError if a file cannot be
        read.

        again: whether the prompt was sent before, so that it may already contain the files.
        """
        if not self.options.attachments:
            return prompt, parts
        files = self.options.attachments if again else current_files(self)
        missing = [
            file.part
            for file in files
            if file.part not in parts
            and not (again and file.part.kind == "text" and file.part.text in prompt)
        ]
        return prompt_of([*(parts or [Part("text", prompt)]), *missing])

    async def _choose(self) -> None:
        """After a command has switched to a profile with candidates, choose among them, and show
        which models are asked. Raises MoAError."""
        profile = self.session.profile
        if self.session.settled or self.models is None or not has_candidates(profile):
            return
        self.session.use(await self.models.settled(profile, patience=LIST_PATIENCE))
        for note in self.session.profile.notes:
            self.say(one_line(note))
        self.say(self.session.models_text())

    async def _run(
        self,
        events: AsyncGenerator[Event, None],
        stopper: Stopper,
        *,
        reporting: Turn | None = None,
        summing_up: bool = False,
    ) -> Turn:
        """Run and show a turn. Ctrl-C and Esc stop the turn, not the program.

        reporting: the turn to report on, if only a report is made. summing_up: whether the reply is
        a summary. A summary is not stored as a turn, and is not written to standard output if that
        is a pipe.
        """
        # Without a terminal, the progress is not shown.
        show = replace(
            self.options,
            progress=self.editor is not None,
            report=self.session.profile.report or reporting is not None,
        )
        actions = {
            "c-c": stopper.stop,
            "escape": stopper.stop,
            "c-l": refresh,
            "c-z": suspend,
        }
        if summing_up:
            piped = not sys.stdout.isatty()
            show = replace(show, report=False, output="json" if piped else show.output)
        shown = sinks_for(show, stopper.hint, actions if self.editor is not None else None)
        recorders: list[Sink] = []
        if not summing_up:
            recorders = self.kept.recorders(
                self.session.profile,
                self.complain,
                merging=reporting or self.session.merging,
                reporting=reporting is not None,
                asks_again=self.session.asks_again,
            )
        keys = TurnKeys(self.editor.source, actions, sys.stderr) if self.editor else None
        with keys or nullcontext():
            # The recorders come first, so that a proposal is stored before it is shown.
            sinks = [*recorders, *shown]
            if self.traces is not None and self.models is not None:
                sinks += self.traces.sinks(self.models.providers)
            turn = await stopper.run(events, *sinks, fold=TurnFold())
            if keys is not None and stopper.cancelled:
                keys.drop_sends()
        return turn

    def _tell(self, turn: Turn) -> None:
        """Show the notes that follow a turn: on its end, its usage and the context."""
        kept = kept_text(self.session.last or turn, "/remerge")
        if turn.status == "interrupted":
            left = "the reply so far is kept" if turn.reply else kept or "nothing was kept"
            self.say(f"moa: interrupted; {left}")
        elif turn.error is not None:
            print_paid(turn, sys.stderr)
            self.say(f"moa: {failure_line(turn)}")
            if kept:
                self.say(f"moa: {kept}")
        elif can_redraw(sys.stderr) and not self.options.accessible:
            self.say("")
        self._tell_usage(turn)
        self._tell_context()

    def _tell_context(self) -> None:
        """Warn once that the conversation will soon be too long for the context of a model."""
        uses = self.session.history_uses()
        tightest = uses[0] if uses else None
        if tightest is None or tightest.context is None or tightest.share < _NEARLY_FULL:
            self._told_of_context = False
            return
        if self._told_of_context:
            return
        self._told_of_context = True
        assumed = "an assumed context" if tightest.assumed else "a context"
        model = f"{tightest.model} ({assumed} of {tightest.context:,} tokens)"
        if tightest.left_out:
            self.say(
                f"moa: the conversation no longer fits {model}: from now on the oldest turns are"
                " left out; /compact summarizes them"
            )
        else:
            self.say(
                f"moa: the conversation takes {tightest.share:.0%} of the room in {model};"
                " when it is full, the oldest turns are left out; /compact summarizes them"
            )

    def _tell_usage(self, turn: Turn) -> None:
        if turn.usage.calls:
            self.remark(f"({usage_line(turn.usage, turn.seconds, turn.ledger)})")
        news = [] if self.models is None else self.models.news()
        for note in [*news, *(self.traces.notes() if self.traces is not None else ())]:
            self.complain(note)
