"""Reads the keys that are typed while a turn runs.

Some keys act at once, such as Esc. Text, and the keys that edit text, are kept for the next prompt.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TextIO

from prompt_toolkit.application import Application
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from moa_cli.terminal.suspension import Hold, holding, is_away
from moa_cli.terminal.tty import can_redraw, modes_of, set_modes

# An Esc that is not followed by another key within this many seconds is the key Esc, and not the
# start of an escape sequence.
ESCAPE_SECONDS = 0.05
_TYPED_BEFORE: dict[Keys | str, KeyPress] = {
    Keys.ControlJ: KeyPress(Keys.ControlM, "\r"),
    Keys.ControlAt: KeyPress(Keys.ControlD, "\x04"),
}
# These keys are not kept for the next prompt. There, Ctrl-D would leave the chat, Ctrl-L would
# clear the reply from the screen, and Ctrl-Z would suspend an idle program. An answer of the
# terminal belongs to a request from before the turn.
_NEVER_LATER = frozenset(
    {Keys.ControlD, Keys.ControlL, Keys.ControlZ, Keys.CPRResponse, Keys.Vt100MouseEvent}
)
_PASTE_ON, _PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"


class TurnKeys:
    """Reads the keys of a terminal in raw mode within a `with` block.

    actions: functions for keys that act at once, by the keys' names in prompt-toolkit ("escape",
    "c-o"). All other keys go to the next prompt, except those in `_NEVER_LATER`. terminal: told to
    mark pastes, so that the lines of a paste do not become separate prompts.
    """

    def __init__(
        self, source: Input, actions: Mapping[str, Callable[[], None]], terminal: TextIO
    ) -> None:
        self._source = source
        self._actions = actions
        self._terminal = terminal
        self._typed: list[KeyPress] = []
        self._flush: asyncio.TimerHandle | None = None
        self._stack = ExitStack()
        # Detached while the program is in the background, where it must not read keys.
        self._attached = ExitStack()
        self._drop_sends = False

    def drop_sends(self) -> None:
        """Drop each Enter that was typed ahead, because the turn before it was cancelled. The typed
        text stays for the next prompt."""
        self._drop_sends = True

    def __enter__(self) -> TurnKeys:
        # Keys are read directly, because an application of prompt-toolkit would draw over the live
        # lines.
        self._stack.enter_context(self._source.raw_mode())
        self._attach()
        self._stack.enter_context(holding(Hold(self._leave, self._attach, self._attached.close)))
        return self

    def _attach(self) -> None:
        # The input may still be attached.
        self._attached.close()
        self._attached.enter_context(self._source.attach(self._ready))
        self._mark_pastes(_PASTE_ON)

    def _leave(self) -> None:
        self._attached.close()
        self._mark_pastes(_PASTE_OFF)

    def __exit__(self, *exception: object) -> None:
        self._take(self._source.flush_keys())
        if self._flush is not None:
            self._flush.cancel()
        if not is_away():
            self._leave()
        self._stack.close()
        if self._drop_sends:
            # An Escape before an Enter is the Alt of an Alt-Enter, and is dropped too.
            sends = [key.key == Keys.ControlM for key in self._typed] + [False]
            self._typed = [
                key
                for place, key in enumerate(self._typed)
                if not sends[place] and not (key.key == Keys.Escape and sends[place + 1])
            ]
        store_typeahead(self._source, self._typed)

    def _mark_pastes(self, sequence: str) -> None:
        if can_redraw(self._terminal):
            self._terminal.write(sequence)
            self._terminal.flush()

    def _ready(self) -> None:
        self._take(self._source.read_keys())
        if self._flush is not None:
            self._flush.cancel()
        loop = asyncio.get_running_loop()
        self._flush = loop.call_later(ESCAPE_SECONDS, lambda: self._take(self._source.flush_keys()))

    def _take(self, keys: list[KeyPress]) -> None:
        for place, key in enumerate(keys):
            # An Esc that comes together with another key is the Alt of that key.
            alone = all(after.key == Keys.Escape for after in keys[place + 1 : place + 2])
            action = self._actions.get(key.key) if alone or key.key != Keys.Escape else None
            if action is not None:
                action()
            elif key.key not in _NEVER_LATER:
                self._typed.append(key)


def own_keys() -> KeyBindings:
    """Key bindings that drop events of a mouse, which nothing here uses.

    In a paste that the terminal does not mark, prompt-toolkit takes a colour such as `ESC [31m` for
    such an event, and its own binding raises ValueError.
    """
    keys = KeyBindings()
    keys.add(Keys.Vt100MouseEvent)(lambda event: None)
    return keys


@contextmanager
def raw_keys(source: Input) -> Iterator[None]:
    """Within the block, the terminal gives keys one by one and without an echo, except while the
    program is suspended."""
    descriptor = source.fileno()
    outside = modes_of(descriptor)
    with source.raw_mode():
        leave = partial(set_modes, descriptor, outside)
        take = partial(set_modes, descriptor, modes_of(descriptor))
        with holding(Hold(leave, take)):
            yield


def terminal_output() -> Output:
    """prompt-toolkit's output to the terminal, which the user sees even if standard output goes to
    a file.

    It clears the screen below the cursor only from the second column on. If the screen is cleared
    from its first character, tmux moves the cleared lines into the scrollback, at each change of
    the window's size.
    """
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        clear = output.erase_down

        def erase_down() -> None:
            output.erase_end_of_line()
            output.cursor_forward(1)
            clear()
            output.cursor_backward(1)

        output.erase_down = erase_down  # type: ignore[method-assign]
    return output


@contextmanager
def held(app: Application[Any]) -> Iterator[None]:
    """Within the block, an application of prompt-toolkit is erased from the screen when the program
    is suspended, and drawn again at the cursor when it continues."""

    def take() -> None:
        # The renderer forgets the earlier position, which may be far above the cursor now. If no
        # shell has written since, as after SIGSTOP and SIGCONT from elsewhere, the cursor is still
        # in the line that is drawn again.
        app.output.write_raw("\r")
        app.renderer.reset()
        if app.is_running:
            # Keys may have been typed before the terminal was in raw mode again.
            app.key_processor.feed_multiple(typed_before(app.input))
            app.key_processor.process_keys()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    with holding(Hold(app.renderer.erase, take)):
        yield


def take_typed_before(source: Input) -> None:
    """Keep the keys that were typed before raw mode for the first prompt. Raw mode must be on now.

    Before raw mode, the terminal turns each Enter into a line break, and a Ctrl-D into a NUL. Only
    the last key is turned back. Line breaks before it may belong to a paste, whose lines must not
    become separate prompts.
    """
    if sys.platform == "win32":
        # The console of Windows stores keys and not characters, so nothing has to be turned back.
        return
    store_typeahead(source, [*get_typeahead(source), *typed_before(source)])


def typed_before(source: Input) -> list[KeyPress]:
    """The keys that were typed before raw mode; see `take_typed_before`. Raw mode must be on
    now."""
    keys: list[KeyPress] = []
    while more := source.read_keys():
        keys += more
    keys += source.flush_keys()
    if keys:
        keys[-1] = _TYPED_BEFORE.get(keys[-1].key, keys[-1])
    return keys


def drop_untimely(source: Input) -> None:
    """Keep the keys that have come since the end of a turn for the next prompt, except those in
    `_NEVER_LATER`, which were typed for the turn."""
    store_typeahead(source, [key for key in source.read_keys() if key.key not in _NEVER_LATER])


def typed_ahead(source: Input) -> bool:
    """Whether keys that were typed during a turn wait for the next prompt."""
    keys = get_typeahead(source)
    store_typeahead(source, keys)
    return bool(keys)


@contextmanager
def keys_set_aside(source: Input) -> Iterator[None]:
    """Keep the keys that were typed before this block for the next prompt. The block does not read
    them."""
    before = get_typeahead(source)
    try:
        yield
    finally:
        store_typeahead(source, [*before, *get_typeahead(source)])
