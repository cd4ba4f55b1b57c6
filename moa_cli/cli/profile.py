"""`moa profile`: list, show, make, change and check profiles."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from moa_cli.cli import wiring
from moa_cli.cli.commands import Commands
from moa_cli.cli.options import ForceProfile, JsonArray, Yes, profile_names, takes_profile
from moa_cli.cli.output import confirm, output_width, print_json, print_lines, say
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import with_hint, wrapped
from moa_cli.terminal.tty import columns_of, folded

if TYPE_CHECKING:
    from pathlib import Path

    from moa_cli.profile import Profile

group = Commands(help="List, show, make, change and check profiles.")

Name = Annotated[str, Argument(metavar="NAME")]
KnownName = Annotated[str, Argument(metavar="NAME", autocompletion=profile_names)]
NameOrPath = Annotated[str, Argument(metavar="NAME|PATH", autocompletion=profile_names)]
OptionalNameOrPath = Annotated[
    str | None, Argument(metavar="NAME|PATH", autocompletion=profile_names)
]


@group.command("list")
def list_(json: JsonArray = False) -> None:
    """List all profiles: yours, then the shipped ones."""
    from moa_cli.profile import list_profiles, load

    found, known = [], wiring.providers()
    default = wiring.default_profile()
    for file in list_profiles():
        try:
            profile = load(file.path)
            known.check(profile)
            about = profile.description
        except ProfileError as error:
            about = f"broken: {error.message}"
        found.append({"name": file.name, "source": file.source, "description": about})
    if json:
        print_json(found)
        return
    if not found:
        say("there are no profiles; `moa profile new NAME` makes one")
    from moa_cli.terminal.table import cell_len, padded

    width = max((cell_len(row["name"]) for row in found), default=0)
    for row in found:
        mark = "*" if row["name"] == default else " "
        head = f"{mark} {padded(row['name'], width)}  {row['source']:<7}  "
        typer.echo(_hanging(head, one_line(row["description"])))


def _hanging(head: str, text: str) -> str:
    """`text` after `head`. At a terminal, the text is folded between words and stays to the right
    of the head."""
    from moa_cli.terminal.table import cell_len

    room = output_width() - cell_len(head)
    if room < 20:
        return (head + text).rstrip()
    return head + f"\n{' ' * cell_len(head)}".join(wrapped(text, room, cell_len))


@group.command("show")
@functools.partial(takes_profile, checked=False)
def show(profile: Profile, named: OptionalNameOrPath = None) -> None:
    """Print each setting in effect, and where it comes from."""
    from moa_cli.profile import rows
    from moa_cli.terminal.plain import setting_lines

    head = one_line(f"profile {profile.name}: {profile.description}").rstrip(": ")
    print_lines(
        [folded(head, sys.stdout), *setting_lines(rows(profile), columns=columns_of(sys.stdout))]
    )
    wiring.providers().check(profile)


@group.command("new")
@takes_profile
def new(profile: Profile, name: Name, force: ForceProfile = False, yes: Yes = False) -> None:
    """Make a profile from the options (those not given are taken from -p, or the default).

    With --strategy, asks at a terminal for what that strategy needs.
    """
    from moa_cli.cli.strategy_questions import completed
    from moa_cli.profile import check_new_name, save

    check_new_name(name, overwrite=force)
    profile = completed(profile, ask=not yes)
    path = save(profile, name, overwrite=force)
    typer.echo(path)
    say(f"made profile {name}; change it with `moa profile edit {name}`")


@group.command("copy")
def copy_(source: NameOrPath, target: Name, force: ForceProfile = False) -> None:
    """Copy a profile, text and comments included."""
    from moa_cli.profile import copy, find

    path = copy(find(source), target, overwrite=force)
    typer.echo(path)
    try:
        _load_checked(path)
    except ProfileError as error:
        # Only a notice, because a broken profile may be copied in order to repair it.
        say(with_hint(error.message, error.hint))


def _load_checked(name_or_path: str | Path) -> Profile:
    """The profile. Raises ProfileError if it is wrong, or names a provider that is not known."""
    from moa_cli.profile import load

    profile = load(name_or_path)
    wiring.providers().check(profile)
    return profile


@group.command("edit")
def edit(name: NameOrPath) -> None:
    """Open a profile in $VISUAL or $EDITOR, then check it. A shipped one is copied first."""
    from moa_cli.profile import copy, find
    from moa_cli.terminal.programs import open_editor

    found = find(name)
    path = found.path
    if found.source == "shipped":
        path = copy(found, found.name)
        say(f"{found.name} is a shipped profile; this is your copy: {path}")
    open_editor(path)
    _load_checked(path)
    say(f"{path} is valid")


@group.command("delete")
def delete_(name: KnownName, yes: Yes = False) -> None:
    """Delete one of your own profiles."""
    from moa_cli.profile import check_profile_name, delete, find, list_profiles

    found = find(check_profile_name(name))
    if found.source != "shipped" and not yes:
        confirm(f"Delete the profile {name} ({found.path})?")
    typer.echo(delete(name))
    if name not in [file.name for file in list_profiles()]:
        with contextlib.suppress(ProfileError):
            if wiring.default_profile() == name:
                say("it was the default: `moa config set profile NAME` chooses another one")


@group.command("check")
def check(name: OptionalNameOrPath = None) -> None:
    """Check a profile (default: all of them) without calling anything."""
    from moa_cli.profile import list_profiles

    broken = False
    for profile_or_path in [name] if name else [file.path for file in list_profiles()]:
        try:
            profile = _load_checked(profile_or_path)
        except ProfileError as error:
            if name:
                raise
            broken = True
            typer.echo(folded(f"ERROR  {one_line(error.message)}", sys.stdout))
            continue
        typer.echo(folded(f"OK     {one_line(wiring.describe(profile))}", sys.stdout))
    if broken:
        raise typer.Exit(2)


@group.command("path")
def path_(
    name: Annotated[str | None, Argument(metavar="NAME", autocompletion=profile_names)] = None,
) -> None:
    """Print the file of a profile, or the folder of your own."""
    from moa_cli.profile import find

    typer.echo(find(name).path if name else paths.user_profiles_dir())
