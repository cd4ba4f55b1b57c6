"""Questions at the terminal of a chat that one key answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import Output

from moa_cli.chat.keys import ESCAPE_SECONDS, held, keys_set_aside, own_keys
from moa_cli.core.text import wrapped
from moa_cli.terminal.suspension import suspend
from moa_cli.terminal.table import cell_len


async def answered(
    question: str, answers: Mapping[str, Sequence[str]], source: Input, output: Output
) -> str:
    """Show a question, and wait for a key of one of the answers. Other keys do nothing.

    answers: each answer with its keys. Keys that were typed before the question are no answer. They
    are kept for the next line.
    """
    given: list[str] = []

    def text() -> StyleAndTextTuples:
        # The answer stays visible after the question.
        columns = max(2, output.get_size().columns - 1)
        rows = wrapped(f"{question} {''.join(given)}", columns, cell_len)
        return [("", "\n".join(rows) + ("" if given else " "))]

    keys = own_keys()

    def end(answer: str, event: KeyPressEvent) -> None:
        if not event.app.is_done:
            given.append(answer)
            event.app.exit(result=answer)

    for answer, names in answers.items():
        for name in names:
            keys.add(name)(partial(end, answer))
    keys.add("c-z")(lambda event: suspend())
    control = FormattedTextControl(text, show_cursor=True)
    window = Window(control, dont_extend_height=True, wrap_lines=True)
    app: Application[str] = Application(
        layout=Layout(window), key_bindings=keys, input=source, output=output
    )
    app.ttimeoutlen = app.timeoutlen = ESCAPE_SECONDS
    with keys_set_aside(source), held(app):
        return await app.run_async()
