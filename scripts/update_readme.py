"""Write the README's tables of options and commands anew from the code.

With --check: write nothing, and exit 1 if the README is not as it would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer.main

from moa_cli.chat.commands import COMMANDS
from moa_cli.cli.app import app

README = Path(__file__).parent.parent / "README.md"


def table(heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    lines = [heads, ("---", "---"), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def options() -> str:
    """A row for each option of `moa ask` that its help shows."""
    group: Any = typer.main.get_command(app)
    shown = [
        one
        for one in group.commands["ask"].params
        if one.param_type_name == "option" and not one.hidden and one.name != "help"
    ]
    names = [", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts]) for one in shown]
    return table(("option", "meaning"), zip(names, [one.help for one in shown], strict=True))


def commands() -> str:
    """A row for each slash command."""
    rows = [(f"`/{one.name} {one.usage}".rstrip() + "`", one.help) for one in COMMANDS.values()]
    return table(("command", "meaning"), rows)


def updated(text: str) -> str:
    """`text` with both tables in place."""
    for name, made in (("options", options()), ("commands", commands())):
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
