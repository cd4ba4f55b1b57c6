"""Write the tables of the README and of docs/design.md anew from the code.

With --check: write nothing, and exit 1 if a page is not as it would be written.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main

from moa_cli.chat.commands import COMMANDS
from moa_cli.cli.table import app
from moa_cli.config import explanation, leaves

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DESIGN = ROOT / "docs" / "design.md"


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, ("---",) * len(heads), *rows]
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


def floors() -> str:
    """A row for each room, the highest floor first, from the contract that import-linter holds."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "floors")
    rows = [
        (str(height), f"`{room.strip()}`", _purpose(room.strip()))
        for height, layer in zip(range(len(layers), 0, -1), layers, strict=True)
        for room in layer.split("|")
    ]
    return table(("floor", "room", "what it is"), rows)


def _purpose(room: str) -> str:
    """The first line of a room's docstring."""
    return (import_module(f"moa_cli.{room}").__doc__ or "").partition("\n")[0]


def updated(text: str, tables: dict[str, str]) -> str:
    """`text` with these tables in their places."""
    for name, made in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{made}\n\n{end}{after}"
    return text


def main() -> int:
    """Write or check; returns the exit code."""
    pages = {
        README: {
            "options": options("ask"),
            "serve": options("serve", beside="ask"),
            "bench": options("bench run", beside="ask"),
            "batch": options("batch", beside="ask"),
            "compare": options("compare", beside="ask"),
            "settings": settings(),
            "commands": commands(),
        },
        DESIGN: {"floors": floors()},
    }
    outdated = False
    for page, tables in pages.items():
        now = page.read_text(encoding="utf-8")
        then = updated(now, tables)
        outdated = outdated or now != then
        if "--check" not in sys.argv:
            page.write_text(then, encoding="utf-8")
    return int(outdated and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
