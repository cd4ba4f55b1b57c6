"""The part of `moa chat` that needs a terminal: the editor, and the steps between two turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from moa_cli.chat import outcomes
from moa_cli.chat.bar import bar
from moa_cli.chat.drafts import edited, wipe_leftovers
from moa_cli.chat.earlier_messages import (
    TextFiles,
    edited_message,
    fork_before,
    line_of,
    message,
    message_text,
    shown_message,
)
from moa_cli.chat.input import Editor, prompt_of
from moa_cli.chat.keys import drop_untimely, raw_keys, take_typed_before, typed_ahead
from moa_cli.chat.loop import Chat
from moa_cli.chat.model_picker import ModelPicker
from moa_cli.chat.outcomes import Outcome
from moa_cli.chat.picker import can_pick, pick
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.errors import MoAError
from moa_cli.core.text import plural
from moa_cli.engine.merging import kept_text
from moa_cli.store.store import Store
from moa_cli.terminal.transcript import Passage

_TWICE_SECONDS = 2.0
# Words that end other programs. The chat asks before it sends one as a prompt, because that would
# cost as much as any other prompt.
_WORDS_TO_LEAVE = frozenset({"exit", "quit", "q", ":q", ":q!", ":wq", "exit()", "quit()"})
# How many turns of a continued conversation are shown.
_PAST_TURNS = 10


@dataclass(frozen=True)
class _Edits:
    """An earlier message that the user edits.

    number: of the message, from 1. decided: whether it is clear that the sent text replaces the
    message; otherwise the user is asked. shows_files: whether the line to edit shows the text files
    of the message.
    """

    number: int
    decided: bool = True
    shows_files: bool = True


async def talk(chat: Chat, warm: Callable[[], Awaitable[None]]) -> None:
    """Read prompts and show replies until the user leaves.

    warm: opens connections to the models in use; called each time the prompt is shown.
    """
    wipe_leftovers()
    warming: set[asyncio.Future[None]] = set()

    async def prepare() -> None:
        await asyncio.to_thread(_load_what_a_turn_needs)
        await warm()

    def begin_warming() -> None:
        if not warming:
            warmed = asyncio.ensure_future(prepare())
            warming.add(warmed)
            warmed.add_done_callback(warming.discard)

    editor = chat.editor = Editor(
        chat, lambda columns: bar(chat, columns), when_shown=begin_warming
    )
    try:
        # Raw mode stays on between two prompts. Otherwise the terminal would echo an Enter that is
        # typed there, and turn it into another key.
        with raw_keys(editor.source):
            take_typed_before(editor.source)
            _show_past(chat, chat.kept.conversation)
            if trouble := editor.trouble():
                chat.complain(trouble)
            await _hold(chat, editor)
    finally:
        for warmed in warming:
            warmed.cancel()
        await asyncio.gather(*warming, return_exceptions=True)


def _load_what_a_turn_needs() -> None:
    """Import modules that the first turn needs. This takes a tenth of a second, so it is done while
    the user types."""
    import tomli_w  # noqa: F401

    import moa_cli.store.recorder
    import moa_cli.terminal.board.live  # noqa: F401


async def _hold(chat: Chat, editor: Editor) -> None:
    unsent = ""
    text_files = TextFiles()
    # The earlier message that the next line edits; None for a new message.
    edits: _Edits | None = None
    while True:
        # An empty line separates the next turn from the last one.
        if not chat.options.accessible:
            chat.say("")
        line, given_up = await _line(chat, editor, unsent)
        unsent, editing, edits = "", None if given_up else edits, None
        if trouble := editor.trouble():
            chat.complain(trouble)
        if line is None:
            return
        if line.rstrip().lower() in _WORDS_TO_LEAVE:
            if await editor.confirm("Leave the chat?"):
                return
            chat.say("not sent; to send it, begin the line with a space")
            continue
        outcome = chat.outcome(line)
        while isinstance(outcome, outcomes.Question):
            outcome = chat.answer(outcome, yes=await editor.confirm(outcome.text))
        if isinstance(outcome, outcomes.Leave):
            return
        if isinstance(outcome, outcomes.Resume):
            await _resume(chat, editor, outcome.prefix)
            continue
        if isinstance(outcome, outcomes.ChooseModels):
            await _choose_models(chat, editor, outcome.typed)
            continue
        if isinstance(outcome, outcomes.TypeAgain):
            edits, unsent = editing, outcome.text
            continue
        if isinstance(outcome, outcomes.EditMessage):
            number, count = outcome.number, len(chat.session.asked())
            text = shown_message(message_text(message(chat.session, number)))
            edits, unsent = _Edits(number), line_of(text)
            chat.say(
                f"message {number} of {count}: Enter sends it in a copy of the conversation that"
                " ends before it, Ctrl-C changes nothing"
            )
            continue
        if isinstance(outcome, outcomes.Send) and not _is_command(line):
            text_files.learn(chat.session.asked())
            editing = editing or _edits_recalled(editor, line)
            if editing is not None and not editing.decided:
                edit = f"edits message {editing.number} in a copy"
                chosen = await editor.press({"Enter": "sends a new message", "e": edit})
                if chosen is None:
                    edits, unsent = editing, line
                    continue
                editing = editing if chosen == "e" else None
            hidden = None
            if editing is not None and not editing.shows_files:
                hidden = message(chat.session, editing.number)
            prompt, parts = text_files.put_back(outcome.prompt, outcome.parts, hidden)
            outcome = replace(outcome, prompt=prompt, parts=parts)
            if editing is not None:
                outcome = _in_a_copy(chat, editing.number, outcome)
        if isinstance(outcome, outcomes.Send | outcomes.Remerge) and editing is None:
            outcome, unsent = await _after_others(chat, editor, line, outcome)
        if isinstance(outcome, outcomes.Edit):
            with editor.source.cooked_mode():
                text = edited(outcome.text)
            take_typed_before(editor.source)
            if outcome.summary:
                chat.write_summary(text)
                continue
            unsent = text
        turn = await chat.carry_out(outcome)
        if turn is not None:
            drop_untimely(editor.source)
        # A prompt without a reply comes back into the line. So does one that was not sent because
        # a file is missing. `/retry` does not, because the next line is often another command.
        sent = isinstance(outcome, outcomes.Send) and not outcome.again
        if sent and not (turn and turn.reply):
            unsent = f"{line}\n" if typed_ahead(editor.source) else line


async def _choose_models(chat: Chat, editor: Editor, typed: str) -> None:
    """Let the user choose models, and show which models are used from now on."""
    if chat.models is None or not can_pick() or chat.options.accessible:
        chat.list_models(typed)
        return
    session = chat.session
    try:
        choice = await ModelPicker(session.profile, chat.models, typed, editor.source).run()
        if choice is None:
            return
        session.use(choice.over(session.profile), settled=session.settled)
    except MoAError as error:
        chat.complain(error.message, error.hint)
        return
    chat.say(session.models_text())


def _edits_recalled(editor: Editor, line: str) -> _Edits | None:
    """The earlier message that the user has brought back and changed; None if the line is no such
    message."""
    recalled = editor.recalled()
    if recalled is None or recalled.number is None or recalled.text.strip() == line.strip():
        return None
    return _Edits(recalled.number, decided=False, shows_files="[attached: " in recalled.text)


def _in_a_copy(chat: Chat, number: int, outcome: outcomes.Send) -> outcomes.Send | None:
    """Go on in a copy of the conversation that ends before message `number`. Returns the prompt
    that is sent there in place of the message; None if this failed."""
    try:
        prompt, parts = edited_message(message(chat.session, number), outcome.prompt, outcome.parts)
        chat.say(fork_before(chat.session, chat.kept, number))
    except MoAError as error:
        chat.complain(error.message, error.hint)
        return None
    return outcomes.Send(prompt, parts=parts)


def _is_command(line: str) -> bool:
    return line.startswith("/") and not line.startswith("//")


async def _after_others(
    chat: Chat, editor: Editor, line: str, outcome: outcomes.Send | outcomes.Remerge
) -> tuple[Outcome, str]:
    """If other processes have changed the conversation, let the user choose what to do with a line
    that asks the models. Returns the outcome to carry out now, and the text for the next line."""
    changes = chat.kept.changes()
    if not changes:
        return outcome, ""
    is_command = _is_command(line)
    # `/retry` has taken the last turn back. It is restored, because the user decides first.
    chat.session.put_back()
    chat.say(f"\n{changes}")
    chosen = await editor.press({"r": "reads it", "f": "continues in a copy without it"})
    try:
        if chosen == "f":
            chat.session.go_on(chat.kept.fork())
            chat.say(f"a copy: {chat.kept.id}")
            return (chat.outcome(line) if is_command else outcome), ""
        if chosen == "r":
            assert chat.kept.id is not None
            past = chat.kept.go_on(chat.kept.id)
            chat.session.go_on(past.conversation)
            news = {*changes.added, *changes.changed}
            _show_turns(chat, [t for t in past.conversation.turns if t.stored_as in news])
    except MoAError as error:
        chat.complain(error.message, error.hint)
    return None, line


async def _resume(chat: Chat, editor: Editor, prefix: str) -> None:
    """Continue another conversation. If there is no prefix of its id, the user chooses it."""
    if not prefix and can_pick() and not chat.options.accessible:
        try:
            chosen = await pick(Store.open, source=editor.source)
        except MoAError as error:
            chat.complain(error.message, error.hint)
            return
        if chosen is None:
            return
        prefix = chosen
    past = chat.resume(prefix)
    if past is not None:
        _show_past(chat, past.conversation)


def _show_past(chat: Chat, conversation: Conversation) -> None:
    """Show the last turns of a continued conversation, including turns without a whole reply."""
    last = chat.session.last
    turns = [
        turn
        for turn, asked_again in zip(
            conversation.turns, _asked_again(conversation.turns), strict=True
        )
        if turn is last or turn.reply is not None or turn.status == "open" or not asked_again
    ]
    earlier = len(turns) - _PAST_TURNS
    if earlier > 0:
        chat.say("")
        chat.remark(f"{plural(earlier, 'earlier turn')}: moa history show {chat.kept.id}")
    _show_turns(chat, turns[-_PAST_TURNS:])


def _show_turns(chat: Chat, turns: Sequence[Turn]) -> None:
    prompt = prompt_of(chat.options)
    last = chat.session.last
    for turn in turns:
        chat.say("")
        asked = shown_message(turn.user)
        passages: list[Passage] = [("prompt", f"{prompt}{asked}")]
        if turn.reply:
            passages += [("note", ""), ("text", turn.reply)]
        chat.recall(passages)
        if turn.status != "finished":
            chat.remark(_unfinished(turn, is_last=turn is last))
    if summed_up := chat.session.conversation.first_sent:
        chat.say("")
        chat.remark(
            f"the models get a summary in place of {plural(summed_up, 'turn')}: /compact show"
        )


def _asked_again(turns: Sequence[Turn]) -> list[bool]:
    """For each turn, whether the turn before or after it has the same prompt."""
    prompts = [None, *(turn.user for turn in turns), None]
    return [
        prompt in (prompts[place - 1], prompts[place + 1])
        for place, prompt in enumerate(prompts[1:-1], 1)
    ]


def _unfinished(turn: Turn, *, is_last: bool) -> str:
    """A sentence on a turn without a whole reply. For the last turn, it also says what the user can
    do."""
    if turn.status == "open":
        return "another moa process is still answering this"
    kept = kept_text(turn, "/remerge") if is_last else ""
    if turn.reply:
        told = "the reply was cut off"
        return f"{told}; {kept or '/retry asks again'}" if is_last else told
    if not is_last:
        return f"no reply: {turn.error.message}" if turn.error else "no reply"
    if turn.asks_again:
        return "no reply; the one above stays; " + (kept or "/retry asks again")
    return f"no reply yet; {kept}" if kept else "no reply; /retry asks again"


async def _line(chat: Chat, editor: Editor, default: str) -> tuple[str | None, bool]:
    """Read the next line. Returns it, and whether the user has discarded the default text. The line
    is None if the user leaves: by Ctrl-D, or by Ctrl-C twice at an empty line."""
    last_time = -_TWICE_SECONDS
    given_up = False
    while True:
        try:
            return await editor.read(default), given_up
        except EOFError:
            return None, True
        except KeyboardInterrupt:
            default, given_up = "", True
            if editor.typed():
                continue
            if time.monotonic() - last_time < _TWICE_SECONDS:
                return None, True
            last_time = time.monotonic()
            chat.say("(Ctrl-C again, Ctrl-D or /exit leaves)")
