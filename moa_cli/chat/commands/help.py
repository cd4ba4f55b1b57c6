"""The slash command `/help`: an overview that fits a screen, and explanations of all commands."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable

from moa_cli.chat.commands.registry import (
    COMMANDS,
    Command,
    Host,
    Section,
    Suggestion,
    command,
    find,
)
from moa_cli.terminal.board.screen import terminal_size

# The columns at which the help of a command, and the names of a section, begin.
_HELP_COLUMN, _NAMES_COLUMN = 25, 14
# A column of help text with fewer cells would be unreadable.
_LEAST_CELLS = 30
_KEYS = (
    "Enter sends, Alt-Enter or Ctrl-J begins a new line. While proposers run, Ctrl-C or Esc"
    " continues with what has arrived; pressed again, it cancels the turn. While the reply is"
    " written, it stops the reply. Ctrl-X Ctrl-E opens your editor, Ctrl-R searches,{} Ctrl-D"
    " leaves."
)
# With a screen reader, there are no panels, and completions are printed below the line.
_ZOOM, _MENU, _COMPLETION = " Ctrl-O shows one proposer alone,", "/ opens a menu.", "Tab completes."
_MORE = (
    "{} /help COMMAND explains one command, /help mixture the section Mixture, and /help all all"
    " commands. A command may be shortened; // sends a text that begins with a slash."
)


def _help_words(host: Host, typed: str) -> list[Suggestion]:
    return [
        Suggestion("all", "what each command does"),
        *(Suggestion(section.lower(), f"the commands of {section}") for section in Section),
        *(Suggestion(known.name, known.help) for known in COMMANDS.values()),
    ]


@command("help", "[COMMAND]", _help_words, aliases=("?",))
def _help(host: Host, argument: str) -> None:
    """List the commands, or explain one, a section or all."""
    columns = terminal_size(sys.stderr)[0]
    section = next((name for name in Section if name.lower() == argument.lower()), None)
    if not argument:
        spoken = host.options.accessible
        keys = _KEYS.format("" if spoken else _ZOOM)
        more = _MORE.format(_COMPLETION if spoken else _MENU)
        host.say("\n".join([*_overview(columns), "", keys, more]))
    elif argument == "all":
        for name in Section:
            host.say(f"{name}\n" + "\n".join(_explained(_of(name), columns)) + "\n ")
    elif section is not None:
        host.say("\n".join(_explained(_of(section), columns)))
    else:
        host.say("\n".join(_explained([find(argument.lstrip("/"))], columns)))


def _of(section: Section) -> list[Command]:
    return [known for known in COMMANDS.values() if known.section == section]


def _overview(columns: int) -> list[str]:
    """The names of the commands, section by section."""
    beside = columns >= _NAMES_COLUMN + _LEAST_CELLS
    indent = _NAMES_COLUMN if beside else 2
    lines: list[str] = []
    for section in Section:
        names = "  ".join(f"/{known.name}" for known in _of(section))
        told = textwrap.wrap(names, max(_LEAST_CELLS, columns) - indent, break_on_hyphens=False)
        rows = [" " * indent + row for row in told]
        if beside:
            rows[0] = f"{section:<{indent}}{told[0]}"
        else:
            lines.append(section)
        lines += rows
    return lines


def _explained(commands: Iterable[Command], columns: int) -> list[str]:
    """The usage and the help text of each command."""
    indent = _HELP_COLUMN if columns >= _HELP_COLUMN + _LEAST_CELLS else 4
    lines: list[str] = []
    for slash in commands:
        head = f"/{slash.name} {slash.usage}".rstrip()
        told = slash.help
        if slash.aliases:
            told += f" Also: {', '.join(f'/{alias}' for alias in slash.aliases)}."
        rows = textwrap.wrap(told, max(_LEAST_CELLS, columns) - indent)
        if len(head) + 2 <= indent:
            lines.append(f"{head:<{indent}}{rows.pop(0)}")
        else:
            lines.append(head)
        lines += [" " * indent + row for row in rows]
    return lines
