"""The prompt of `moa chat`: editing, history, completion, and the bar below the line."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from itertools import compress

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import ThreadedCompleter, merge_completers
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import (
    Always,
    Condition,
    completion_is_selected,
    has_completions,
    is_searching,
    vi_mode,
)
from prompt_toolkit.formatted_text import AnyFormattedText, FormattedText, StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.bindings.named_commands import get_by_name
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import Output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.renderer import CPR_Support, print_formatted_text
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth, is_dumb_terminal

from moa_cli.chat.commands.registry import ChatOptions, Host
from moa_cli.chat.completion import (
    MENU_STYLE,
    CommandCompleter,
    PathCompleter,
    complete_now,
    is_command_begun,
    is_mention_begun,
    menu_rows,
    needs_more,
    take_chosen,
)
from moa_cli.chat.confirming import answered
from moa_cli.chat.drafts import edited
from moa_cli.chat.earlier_messages import Recalled, SuggestEarlierLine, message_text, recalled
from moa_cli.chat.keys import ESCAPE_SECONDS, held, own_keys, terminal_output
from moa_cli.chat.prompt_history import PromptFile
from moa_cli.chat.session import Session
from moa_cli.core.errors import StoreError
from moa_cli.store.stored_values import as_unicode
from moa_cli.terminal.suspension import lent, suspend

_PROMPT = "› "
# A screen reader spells the sign out.
_SPOKEN_PROMPT = "You: "
# The marks before the second and later lines of a prompt, and before the second and later rows of a
# folded line.
_CONTINUED, _FOLDED = "… ", "  "
_FOLDED_ROW: StyleAndTextTuples = [("class:prompt-continuation", _FOLDED)]
_ENTER, _BACK = ("enter", "c-j"), ("escape", "c-c", "c-d")
# Seconds that a key that may begin a longer binding (Ctrl-X Ctrl-E) waits for the next key. The
# default of prompt-toolkit feels slow.
_SEQUENCE_SECONDS = 0.4
# The default bar is in reverse video, brighter than the conversation.
_STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse ansibrightblack",
        "prompt": "bold",
        "auto-suggestion": "italic",
        **MENU_STYLE,
    }
)


class _Prompts(History):
    """The lines that Up and Ctrl-R bring back: the messages of this conversation, then the prompts
    of earlier chats.

    As in shells, a line that begins with a space is not remembered. trouble: an error of the file
    of prompts, or None; it is set only once. offered: the lines that can be brought back while the
    present line is typed, the latest first.
    """

    def __init__(self, file: PromptFile | None, session: Session, *, adds: bool) -> None:
        super().__init__()
        self.trouble: str | None = None
        self.offered: list[Recalled] = []
        self._session = session
        # The value of `Session.begun` for the present conversation; and how many of the entries
        # were typed in it.
        self._begun = session.begun
        self._typed = 0
        # Messages that are not brought back, because they were typed after a space, or deleted from
        # the file.
        self._hidden: set[str] = set()
        self._file = file
        self._adds = adds
        self._told = False
        # The typed lines, the latest first, each with whether it is in the file.
        self._entries: list[tuple[str, bool]] = []
        self._state: object = None
        if file is None:
            return
        self._state = file.state()
        try:
            self._entries = [(entry.text, True) for entry in reversed(file.read())]
        except StoreError as error:
            self._file = None
            self._tell(error)

    async def load(self) -> AsyncGenerator[str, None]:
        """See `History`. prompt-toolkit calls it before each line."""
        self._forget_deleted()
        if self._begun != self._session.begun:
            self._begun, self._typed = self._session.begun, 0
        self.offered = self._recalled()
        for line in self.offered:
            yield line.text

    def _recalled(self) -> list[Recalled]:
        entries = [text for text, _ in self._entries]
        messages = [message_text(turn) for turn in self._session.asked()]
        found = recalled(entries[: self._typed], messages, entries[self._typed :])
        return [line for line in found if line.text.strip() not in self._hidden]

    def _forget_deleted(self) -> None:
        """Forget the prompts that another process has removed from the file."""
        if self._file is None or self._file.state() == self._state:
            return
        self._state = self._file.state()
        try:
            there = {entry.text for entry in self._file.read()}
        except StoreError:
            return
        stays = [not filed or as_unicode(text) in there for text, filed in self._entries]
        self._hidden |= {
            text.strip() for (text, _), kept in zip(self._entries, stays, strict=True) if not kept
        }
        self._typed -= stays[: self._typed].count(False)
        self._entries = list(compress(self._entries, stays))

    def get_strings(self) -> list[str]:
        # This is called at each key, for the suggestion after the line, so it must be fast. `load`
        # has read everything before.
        return [line.text for line in reversed(self.offered)]

    def load_history_strings(self) -> list[str]:
        return [line.text for line in self._recalled()]

    def store_string(self, string: str) -> None:
        if string.startswith(" "):
            self._hidden.add(string.strip())
            return
        self._hidden.discard(string.strip())
        self._forget_deleted()
        self._entries.insert(0, (string, False))
        self._typed += 1
        if self._file is None or not self._adds:
            return
        try:
            self._entries[0] = (string, self._file.add(string))
        except StoreError as error:
            self._tell(error)
        self._state = self._file.state()

    def _tell(self, error: StoreError) -> None:
        if self._adds and not self._told:
            self._told = True
            self.trouble = f"prompts are remembered for this chat only: {error.message}"


def prompt_of(options: ChatOptions) -> str:
    """The prompt sign before the line that the user types."""
    return _SPOKEN_PROMPT if options.accessible else _PROMPT


@Condition
def _menu_begun() -> bool:
    """Whether the line is one for which the menu opens by itself."""
    before = get_app().current_buffer.document.text_before_cursor
    return is_command_begun(before) or is_mention_begun(before)


def _keys(options: ChatOptions) -> KeyBindings:
    keys = own_keys()
    swapped = Condition(lambda: options.multiline)
    has_menu = Condition(lambda: not options.accessible)

    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if take_chosen(buffer):
            return
        if has_menu() and needs_more(buffer):
            # The argument is typed next. After the space, the menu shows the possible arguments.
            buffer.insert_text(" ")
        else:
            buffer.validate_and_handle()

    def delete(event: KeyPressEvent) -> None:
        # prompt-toolkit updates the menu by itself only when text is typed, not when it is deleted.
        get_by_name("backward-delete-char").call(event)
        event.current_buffer.start_completion(select_first=False)

    def clear_screen(event: KeyPressEvent) -> None:
        event.app.renderer.erase()
        _scroll_away(event.app.output)
        event.app.renderer.request_absolute_cursor_position()

    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    def open_editor(event: KeyPressEvent) -> None:
        # prompt-toolkit's own function leaves the text in the system's temporary folder if the
        # process is killed.
        event.app.create_background_task(_edit(event.current_buffer))

    # Without ~is_searching, Enter could not end an incremental search.
    keys.add("enter", filter=~swapped & ~is_searching)(send)
    keys.add("enter", filter=swapped & ~is_searching)(new_line)
    # In the menu, Enter accepts the choice, also when Enter and Alt-Enter are swapped.
    keys.add("enter", filter=swapped & completion_is_selected & _menu_begun)(send)
    # Not in vi mode, where Esc must act at once, and not wait for an Enter.
    keys.add("escape", "enter", filter=~swapped & ~vi_mode)(new_line)
    keys.add("escape", "enter", filter=swapped)(send)
    keys.add("tab", filter=_menu_begun & has_menu)(lambda event: complete_now(event.current_buffer))
    keys.add("escape", filter=has_completions & ~vi_mode)(
        lambda event: event.current_buffer.cancel_completion()
    )
    keys.add("backspace", filter=has_completions & has_menu)(delete)
    keys.add("c-j", filter=~is_searching)(new_line)
    keys.add("c-x", "c-e", filter=~is_searching)(open_editor)
    keys.add("c-z")(lambda event: suspend())
    keys.add("c-l")(clear_screen)
    return keys


def _scroll_away(output: Output) -> None:
    """Clear the screen below the cursor, and move the rows above it into the scrollback. The cursor
    is in the first column. The terminal's own erasing is not used, because it would lose a
    reply."""
    # As many line feeds as the screen has rows, less one. They first move the cursor to the last
    # row. The rest scrolls the screen, by exactly the rows that were above the cursor.
    output.erase_down()
    output.write_raw("\n" * (output.get_size().rows - 1))
    output.cursor_goto(0, 0)
    output.flush()


def _print_whole(output: Output, prompt: str, line: str) -> None:
    """Print a sent line with its prompt sign, in the same form as it was drawn. output: the
    terminal, with its cursor in the first column."""
    columns = output.get_size().columns
    parts: list[tuple[str, str]] = []
    for number, text in enumerate(line.split("\n")):
        first = "class:prompt" if number == 0 else "class:prompt-continuation"
        before = prompt if number == 0 else _CONTINUED
        for place, row in enumerate(_folded(text, columns - len(before))):
            parts += [(first, _FOLDED if place else before), ("", f"{row}\n")]
    print_formatted_text(output, FormattedText(parts), _STYLE)


def _folded(text: str, cells: int) -> Iterator[str]:
    """A text in rows of at most `cells`, with visible signs in place of control characters."""
    row: list[str] = []
    taken = 0
    for letter in text:
        shown = Char.display_mappings.get(letter, letter)
        width = get_cwidth(shown)
        if row and taken + width > cells:
            yield "".join(row)
            row, taken = [], 0
        row.append(shown)
        taken += width
    yield "".join(row)


async def _edit(buffer: Buffer) -> None:
    """Open the user's editor on the line. Errors are shown above it."""
    with lent():
        text = await run_in_terminal(lambda: edited(buffer.text), in_executor=True)
    buffer.document = Document(text, len(text))


class Editor:
    """The editor for the line of a chat.

    host: the chat, for the completion of commands. bar: returns the text below the line for a
    number of columns. when_shown: called each time a new prompt is on the screen. source, output:
    used in place of the terminal's keyboard and screen.
    """

    def __init__(
        self,
        host: Host,
        bar: Callable[[int], str],
        *,
        when_shown: Callable[[], None] = lambda: None,
        source: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._options = options = host.options
        self._bar = bar
        self._when_shown = when_shown
        # On a dumb terminal, prompt-toolkit does not move the cursor if the session has no own
        # output. A plain output also keeps it from showing or hiding the cursor.
        dumb = output is None and is_dumb_terminal()
        if output is None and not dumb:
            output = terminal_output()
        file = PromptFile(options.prompts) if options.prompts else None
        self._prompts = _Prompts(file, host.session, adds=options.save)
        self._suggest = SuggestEarlierLine(lambda: self._prompts.offered)
        with create_app_session(output=PlainTextOutput(sys.stdout) if dumb else None):
            self._prompt: PromptSession[str] = PromptSession(
                history=self._prompts,
                # In a thread, because a network folder may be slow, and typing must go on.
                completer=merge_completers(
                    [CommandCompleter(host), ThreadedCompleter(PathCompleter())]
                ),
                key_bindings=_keys(options),
                multiline=True,
                prompt_continuation=self._continuation,
                enable_open_in_editor=False,
                style=_STYLE,
                input=source,
                output=output,
            )
        window = self._prompt.app.layout.current_window
        # Otherwise the bar would be at the bottom of the screen, far from the line.
        window.dont_extend_height = Always()
        self._first_of_line = window.get_line_prefix
        window.get_line_prefix = self._prefix
        self._prompt.app.before_render += lambda _: self._fit()
        self._prompt.app.ttimeoutlen = ESCAPE_SECONDS
        self._prompt.app.timeoutlen = _SEQUENCE_SECONDS

    def _fit(self) -> None:
        """Adapt to the height of the screen. On a low screen, the menu gets fewer rows, because
        otherwise prompt-toolkit would have no room for the line and draw nothing. If a sent line is
        higher than the screen, prompt-toolkit would leave only its last rows. So it is erased then,
        and `read` prints the whole line."""
        app = self._prompt.app
        size = app.output.get_size()
        self._prompt.reserve_space_for_menu = menu_rows(size.rows)
        sent = app.future is not None and app.future.done() and app.future.exception() is None
        room = app.layout.container.preferred_height(size.columns, size.rows) if sent else None
        app.erase_when_done = room is not None and room.preferred >= size.rows

    @property
    def source(self) -> Input:
        """The input that keys come from."""
        return self._prompt.app.input

    def clear_screen(self) -> None:
        """Clear the screen, if the terminal can."""
        if is_dumb_terminal():
            return
        _scroll_away(self._prompt.app.output)

    async def read(self, default: str = "") -> str:
        """Read the next line. default: its text at first.

        Raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D.
        """
        self._prompt.editing_mode = EditingMode.VI if self._options.vi else EditingMode.EMACS
        self._set_up()
        prompt = prompt_of(self._options)
        # A dumb terminal does not show the default text, so it is shown with the prompt.
        message = f"{prompt}{default}" if is_dumb_terminal() else prompt
        drawn = self._prompt.app.after_render

        def shown(_: object) -> None:
            drawn.remove_handler(shown)
            self._when_shown()

        drawn.add_handler(shown)
        self._prompts.offered = []
        try:
            with held(self._prompt.app):
                line = await self._prompt.prompt_async(message, default=default)
                if self._prompt.app.erase_when_done:
                    _print_whole(self._prompt.app.output, prompt, line)
                return line
        finally:
            drawn.remove_handler(shown)

    async def confirm(self, question: str) -> bool:
        """Ask a question that one key answers: True for y; False for n, Enter, Esc and Ctrl-C."""
        answers = {"y": ("y", "Y"), "n": ("n", "N", *_ENTER, *_BACK)}
        question = f"{question} (y/n)"
        return await answered(question, answers, self.source, self._prompt.app.output) == "y"

    def recalled(self) -> Recalled | None:
        """The earlier line that the user brought back, by Up or a search, and then sent, perhaps
        changed; None if the user typed a new line."""
        offered = self._prompts.offered
        # In the buffer, the offered lines stand before the new one, the oldest first.
        place = len(offered) - 1 - self._prompt.default_buffer.working_index
        return offered[place] if 0 <= place < len(offered) else None

    async def press(self, answers: Mapping[str, str]) -> str | None:
        """Let the user press one of several keys. Returns its name; None for Esc, Ctrl-C and
        Ctrl-D.

        answers: the keys, each with a few words on what it does. A key is a letter, or `Enter`.
        """
        keys = {name: _ENTER if name == "Enter" else (name, name.upper()) for name in answers}
        offered = " · ".join(f"{name} {words}" for name, words in answers.items())
        question, output = f"{offered} · Esc goes back:", self._prompt.app.output
        answer = await answered(question, {**keys, "Esc": _BACK}, self.source, output)
        return answer if answer in answers else None

    def _set_up(self) -> None:
        """Switch the bar, the menu and the suggestions off in accessible mode, and on otherwise."""
        prompt, accessible = self._prompt, self._options.accessible
        size = prompt.app.output.get_size
        prompt.bottom_toolbar = None if accessible else lambda: self._bar(size().columns)
        prompt.complete_while_typing = False if accessible else _menu_begun
        if accessible:
            # With it, prompt-toolkit would move to the last row of the screen and back, to make
            # room for a menu.
            prompt.app.renderer.cpr_support = CPR_Support.NOT_SUPPORTED
        prompt.auto_suggest = None if accessible else self._suggest
        prompt.complete_style = CompleteStyle.READLINE_LIKE if accessible else CompleteStyle.COLUMN

    def _continuation(self, width: int, line: int, folds: int) -> str:
        return "" if self._options.accessible else _CONTINUED

    def _prefix(self, line: int, folds: int) -> AnyFormattedText:
        """What stands before a row of the prompt. folds: the rows of its line that are above it.

        For further rows of a folded line, prompt-toolkit's own function does not count: it takes as
        long as all the rest, as a pasted line of a megabyte has 13,000 rows, and each is asked for
        several times a frame.
        """
        if folds:
            return [] if self._options.accessible else _FOLDED_ROW
        return self._first_of_line(line, folds) if self._first_of_line else []

    def trouble(self) -> str | None:
        """An error of the file of prompts that the user has not been told yet, or None."""
        trouble, self._prompts.trouble = self._prompts.trouble, None
        return trouble

    def typed(self) -> str:
        """The text of the line when the user last left it."""
        return self._prompt.default_buffer.text
