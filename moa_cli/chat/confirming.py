"""A question at the terminal of a chat that one key answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from moa_cli.chat.keys import held

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

# How long an Esc waits for the rest of a terminal's sequence.
_ESCAPE_SECONDS = 0.05


async def confirmed(question: str, source: Input, output: Output) -> bool:
    """Ask, and wait for the key. Keys that were typed before are no answer: they wait for the next
    line.

    Args:
        question: One line of plain text.
        source: The terminal's keyboard.
        output: The terminal's screen.

    Returns:
        True for y; False for n, Enter, Esc and Ctrl-C. Other keys do nothing.
    """
    answer: list[str] = []

    def text() -> StyleAndTextTuples:
        # The answer stays to be read behind the question.
        return [("", f"{question} (y/n) {''.join(answer)}")]

    keys = KeyBindings()

    def on(*names: str, yes: bool) -> None:
        def end(event: KeyPressEvent) -> None:
            if not event.app.is_done:
                answer.append("y" if yes else "n")
                event.app.exit(result=yes)

        for name in names:
            keys.add(name)(end)

    on("y", "Y", yes=True)
    on("n", "N", "enter", "c-j", "escape", "c-c", "c-d", yes=False)
    control = FormattedTextControl(text, show_cursor=True)
    window = Window(control, dont_extend_height=True, wrap_lines=True)
    app: Application[bool] = Application(
        layout=Layout(window), key_bindings=keys, input=source, output=output
    )
    app.ttimeoutlen = app.timeoutlen = _ESCAPE_SECONDS
    typed_before = get_typeahead(source)
    try:
        with held(app):
            return await app.run_async()
    finally:
        store_typeahead(source, [*typed_before, *get_typeahead(source)])
