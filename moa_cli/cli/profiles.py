"""`moa profile`: list, show, make, change and check profiles."""

from __future__ import annotations

import functools
import sys
from typing import Annotated

import typer

from moa_cli.cli.commands import Commands
from moa_cli.cli.confirm import confirm
from moa_cli.cli.options import takes_profile
from moa_cli.core.errors import ProfileError
from moa_cli.profile import (
    Profile,
    check_profile_name,
    copy,
    delete,
    find,
    list_profiles,
    load,
    rows,
    save,
)

__all__ = ["group"]

group = Commands(
    help="List, show, make, change and check profiles.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME")]
NameOrPath = Annotated[str, typer.Argument(metavar="NAME|PATH")]
Force = Annotated[bool, typer.Option("--force", help="Replace a profile of that name.")]


@group.command("list")
def list_(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List all profiles: yours, then the shipped ones."""
    from moa_cli.cli.wiring import default_profile, providers
    from moa_cli.core.sanitize import one_line

    found, known = [], providers()
    default = default_profile()
    for one in sorted(list_profiles(), key=lambda one: one.source != "user"):
        try:
            profile = load(one.name)
            known.check(profile)
            about = profile.description
        except ProfileError as error:
            about = f"broken: {error.message}"
        found.append({"name": one.name, "source": one.source, "description": about})
    if json:
        from moa_cli.core.text import dumps

        typer.echo(dumps(found, indent=2))
        return
    width = max(len(one["name"]) for one in found)
    for row in found:
        mark = "*" if row["name"] == default else " "
        head = f"{mark} {row['name']:<{width}}  {row['source']:<7}  "
        typer.echo(_hanging(head, one_line(row["description"])))


def _hanging(head: str, text: str) -> str:
    """`text` after `head`; on a terminal folded between words, beside it."""
    import shutil
    import textwrap

    room = shutil.get_terminal_size().columns - len(head)
    if not sys.stdout.isatty() or room < 20:
        return (head + text).rstrip()
    return head + f"\n{' ' * len(head)}".join(textwrap.wrap(text, room))


@group.command("show")
@functools.partial(takes_profile, checked=False)
def show(
    profile: Profile,
    named: Annotated[str | None, typer.Argument(metavar="[NAME|PATH]")] = None,
) -> None:
    """Print each setting in force, and where it came from."""
    from moa_cli.cli.wiring import providers
    from moa_cli.core.sanitize import one_line
    from moa_cli.terminal.plain import setting_lines
    from moa_cli.terminal.tty import columns_of

    typer.echo(f"profile {profile.name}: {one_line(profile.description)}".rstrip(": "))
    typer.echo("\n".join(setting_lines(rows(profile), columns=columns_of(sys.stdout))))
    providers().check(profile)


@group.command("new")
@takes_profile
def new(profile: Profile, name: Name, force: Force = False) -> None:
    """Make a profile from the options (those not given are taken from -p, or the default)."""
    path = save(profile, name, overwrite=force)
    typer.echo(str(path))
    _tell(f"made profile {name}; change it with `moa profile edit {name}`")


@group.command("copy")
def copy_(source: NameOrPath, target: Name, force: Force = False) -> None:
    """Copy a profile, text and comments included."""
    path = copy(find(source), target, overwrite=force)
    typer.echo(str(path))
    try:
        _load_checked(str(path))
    except ProfileError as error:
        # It may have been copied to be mended.
        _tell(f"{error.message} ({error.hint})" if error.hint else error.message)


def _load_checked(name_or_path: str) -> Profile:
    """The profile. Raises ProfileError if it is wrong, or names a provider that is not known."""
    from moa_cli.cli.wiring import providers

    profile = load(name_or_path)
    providers().check(profile)
    return profile


@group.command("edit")
def edit(name: NameOrPath) -> None:
    """Open a profile in $VISUAL or $EDITOR, then check it. A shipped one is copied first."""
    from moa_cli.terminal.editor import open_editor

    found = find(name)
    path = found.path
    if found.source == "shipped":
        path = copy(found, found.name)
        _tell(f"{found.name} is a shipped profile; this is your copy: {path}")
    open_editor(path)
    _load_checked(str(path))
    _tell(f"{path} is right")


@group.command("delete")
def delete_(
    name: Name, yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False
) -> None:
    """Delete one of your own profiles."""
    found = find(check_profile_name(name))
    if found.source != "shipped" and not yes:
        confirm(f"Delete the profile {name} ({found.path})?")
    typer.echo(str(delete(name)))


@group.command("check")
def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME|PATH]")] = None,
) -> None:
    """Check a profile (default: all of them) without calling anything."""
    from moa_cli.cli.wiring import describe
    from moa_cli.core.sanitize import one_line

    names = [name] if name else [one.name for one in list_profiles()]
    problems = 0
    for one in names:
        try:
            profile = _load_checked(one)
        except ProfileError as error:
            if name:
                raise
            problems += 1
            typer.echo(f"ERROR  {one_line(error.message)}")
            continue
        typer.echo(f"OK     {one_line(describe(profile))}")
    if problems:
        raise typer.Exit(2)


@group.command("path")
def path_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
) -> None:
    """Print the file of a profile, or the folder of your own."""
    from moa_cli.core import paths

    typer.echo(str(find(name).path if name else paths.user_profiles_dir()))


def _tell(text: str) -> None:
    typer.echo(f"moa: {text}", err=True)
