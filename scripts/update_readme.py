"""Write the README's tables of options, settings and commands anew from the code.

With --check: write nothing, and exit 1 if the README is not as it would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from moa_cli.chat.commands import COMMANDS
from moa_cli.cli.app import app
from moa_cli.settings import explanation, leaves

README = Path(__file__).parent.parent / "README.md"


def table(heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    lines = [heads, ("---", "---"), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def options(command: str, *, beside: str | None = None) -> str:
    """A row for each option of a command that its help shows; not for those that the command
    `beside` has, too."""
    other = _command(beside).params if beside else []
    told = {(tuple(one.opts), getattr(one, "help", None)) for one in other}
    shown = [
        one
        for one in _command(command).params
        if one.param_type_name == "option"
        and not one.hidden
        and one.name != "help"
        and (tuple(one.opts), one.help) not in told
    ]
    names = [", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts]) for one in shown]
    return table(("option", "meaning"), zip(names, map(_meaning, shown), strict=True))


def _command(path: str) -> Any:
    """The command of that name; of a group's, both names with a space between them."""
    found: Any = typer.main.get_command(app)
    for name in path.split():
        found = found.commands[name]
    return found


def _meaning(option: Any) -> str:
    """What its help says, with its default if that is a number or a word."""
    default = option.default
    if default in (None, "") or isinstance(default, bool | Enum | list | tuple):
        return str(option.help)
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{option.help} Default: {shown}."


def settings() -> str:
    """A row for each setting of the settings file."""
    rows = [(f"`{'.'.join(path)}`", explanation(path, key)) for path, key in leaves().items()]
    return table(("setting", "meaning"), rows)


def commands() -> str:
    """A row for each slash command."""
    rows = [(f"`/{one.name} {one.usage}".rstrip() + "`", one.help) for one in COMMANDS.values()]
    return table(("command", "meaning"), rows)


def updated(text: str) -> str:
    """`text` with all tables in place."""
    tables = {
        "options": options("ask"),
        "serve": options("serve", beside="ask"),
        "bench": options("bench run", beside="ask"),
        "batch": options("batch", beside="ask"),
        "compare": options("compare", beside="ask"),
        "settings": settings(),
        "commands": commands(),
    }
    for name, made in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{made}\n\n{end}{after}"
    return text


def main() -> int:
    """Write or check; returns the exit code."""
    now = README.read_text(encoding="utf-8")
    then = updated(now)
    if "--check" in sys.argv:
        return int(now != then)
    README.write_text(then, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
