"""Finds and stores profiles: first in the user's folder, then among the shipped ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from moa_cli.config.toml import read_toml
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.files.new_file import why_unfit
from moa_cli.core.files.text import read_bytes
from moa_cli.core.text import meant
from moa_cli.core.values import KeyPath
from moa_cli.profile import merge_prompt
from moa_cli.profile.schema import Origin, Profile, build, dump

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ProfileFile:
    """A profile that was found: its name, its file, and its source."""

    name: str
    path: Path
    source: Literal["path", "user", "shipped"]


def check_profile_name(name: str) -> str:
    """Return `name` if it is allowed as the name of a profile.

    Raises ProfileError for anything that could leave the profiles folder.
    """
    if not _NAME.fullmatch(name) or name.endswith((".toml", ".")):
        raise ProfileError(
            f"{name!r} cannot be the name of a profile",
            hint="use letters, digits, dots, dashes and underscores, 64 at most; begin with a"
            " letter or a digit, and do not end with a dot or .toml",
        )
    return name


def _new_file(name: str, hint: str, *, overwrite: bool) -> Path:
    """The file for a profile that will be written. hint: the hint if the profile exists already.

    Raises ProfileError if it exists (unless `overwrite`), or if the name is not possible on all
    systems.
    """
    check_profile_name(name)
    unfit = why_unfit(name)
    if unfit:
        raise ProfileError(
            f"`{name}` cannot be the name of a profile: {unfit}", hint="choose another name"
        )
    path = paths.user_profiles_dir() / f"{name}.toml"
    names = [file.stem for file in path.parent.glob("*.toml")]
    alike = [other for other in names if other != name and other.lower() == name.lower()]
    if alike and name not in names:
        raise ProfileError(
            f"there is already a profile `{alike[0]}`, and names that differ in upper and lower"
            " case only are one file on macOS and Windows",
            hint="choose another name",
        )
    if path.exists() and not overwrite:
        raise ProfileError(f"there is already a profile `{name}` ({path})", hint=hint)
    return path


def check_new_name(name: str, *, overwrite: bool = False) -> None:
    """Raise ProfileError if `save` would raise it for this name, so that it can be checked
    first."""
    _new_file(name, "choose another name, or --force", overwrite=overwrite)


def _write(path: Path, content: bytes) -> None:
    """Write a file. Raises ProfileError if it cannot be written."""
    try:
        paths.make_private(path.parent)
        with paths.replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise ProfileError(f"cannot be written: {error.strerror}", place=str(path)) from None


def find(name_or_path: str) -> ProfileFile:
    """The file of a profile: an explicit path, else the user's profile of that name, else a shipped
    one.

    Raises ProfileError, with the nearest known name, if there is none.
    """
    separators = {"/", os.sep, os.altsep or "/"}
    if name_or_path.endswith(".toml") or any(mark in name_or_path for mark in separators):
        path = paths.expand(name_or_path)
        if not paths.is_file(path) and not paths.is_pipe(path):
            raise ProfileError("no such profile file", place=str(path))
        return ProfileFile(path.stem, path, "path")
    check_profile_name(name_or_path)
    for file in _all_files():
        if file.name == name_or_path:
            return file
    known = [file.name for file in list_profiles()]
    hint = meant(name_or_path, known, f"known profiles: {', '.join(known)}")
    raise ProfileError(f"there is no profile `{name_or_path}`", hint=hint)


def _all_files() -> Iterator[ProfileFile]:
    folders: dict[Literal["user", "shipped"], Path] = {
        "user": paths.user_profiles_dir(),
        "shipped": paths.shipped_profiles_dir(),
    }
    for source, folder in folders.items():
        for path in sorted(folder.glob("*.toml")):
            if _NAME.fullmatch(path.stem):
                yield ProfileFile(path.stem, path, source)


def list_profiles() -> list[ProfileFile]:
    """All profiles by name. A user's profile replaces a shipped one of the same name."""
    found = {file.name: file for file in reversed(list(_all_files()))}
    return sorted(found.values(), key=lambda file: (file.source != "user", file.name))


def description_of(file: ProfileFile) -> str:
    """The description in the profile's file; "" if there is none, or the file cannot be read."""
    try:
        return _description(file.path, file.path.stat().st_mtime_ns)
    except (OSError, ProfileError):
        return ""


@lru_cache(maxsize=256)
def _description(path: Path, changed: int) -> str:
    """The description in a file. changed: the time of its last change, so that the cache does not
    return the description of an older version."""
    description = read_toml(path).get("description", "")
    return description if isinstance(description, str) else ""


def file_origins(table: Mapping[str, Any], file: Path) -> dict[KeyPath, Origin]:
    """The origin of each value of a profile's file, by the path of the value; () is the file
    itself."""
    origin = Origin("profile", str(file))

    def walk(value: object, path: KeyPath) -> Iterator[KeyPath]:
        yield path
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(inner, (*path, key))
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                yield from walk(inner, (*path, place))

    return dict.fromkeys(walk(table, ()), origin)


def read_tables(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Origin]]:
    """The tables of a profile's file, and the origin of each value. If the merge prompt is the name
    of a file, the text of that file replaces it.

    Raises ProfileError, naming the file, if one of the two cannot be read.
    """
    table = read_toml(path)
    origins = file_origins(table, path)
    named = table.get("merge_prompt")
    if isinstance(named, str) and merge_prompt.names_file(named):
        text, file = merge_prompt.read_file(named, path.parent, str(path))
        table["merge_prompt"] = text
        origins["merge_prompt",] = Origin("profile", str(file))
    return table, origins


def load(name_or_path: str | Path) -> Profile:
    """Load a profile from its file, without the overrides of the environment.

    Args:
        name_or_path: The name of a profile (see `moa profile list`), or the path of a TOML file.

    Returns:
        The profile.

    Raises:
        ProfileError: There is no such profile, or it is wrong.
    """
    file = find(str(name_or_path))
    return build(file.name, *read_tables(file.path))


def save(profile: Profile, name: str, *, overwrite: bool = False) -> Path:
    """Save `profile` as the user's profile `name`; returns its file.

    Raises ProfileError for an invalid name, an existing file (unless `overwrite`), or a failed
    write.
    """
    hint = f"choose another name, or run `moa profile delete {name}` first"
    path = _new_file(name, hint, overwrite=overwrite)
    try:
        content = dump(profile).encode("utf-8")
    except UnicodeEncodeError:
        # A text has half of a surrogate pair, which a paste or an argument may contain.
        raise ProfileError(
            "cannot be written: a text in it is not Unicode", place=str(path)
        ) from None
    _write(path, content)
    return path


def copy(source: ProfileFile, name: str, *, overwrite: bool = False) -> Path:
    """Save the text of `source` as the user's profile `name`; returns its file.

    Raises ProfileError as `save` does, or if the source cannot be read.
    """
    path = _new_file(name, "choose another name, or --force", overwrite=overwrite)
    _write(path, read_bytes(source.path, ProfileError))
    return path


def delete(name: str) -> Path:
    """Remove the user's profile `name`; returns the file that was removed.

    Raises ProfileError if there is none, or it is a shipped one.
    """
    found = find(check_profile_name(name))
    if found.source == "shipped":
        raise ProfileError(f"`{name}` is a shipped profile and cannot be deleted")
    try:
        found.path.unlink()
    except OSError as error:
        raise ProfileError(f"cannot be deleted: {error.strerror}", place=str(found.path)) from None
    return found.path
