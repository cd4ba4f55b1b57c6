"""Finds the files of a folder, and the files that match a pattern (`src/**/*.py`).

Hidden files, files that Git ignores, caches and installed packages are left out. Links to folders
are not followed, so that the search cannot run in a loop.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice, product
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import UsageError

# A search ends with an error after this many files, which nobody attaches on purpose, or after this
# many entries of folders.
MOST_FILES, _MOST_ENTRIES = 5_000, 200_000
_WILD = re.compile(r"[*?]|\[[^\]/\\]+\]|\{[^{}]*,[^{}]*\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
# Folders, and marks in folders, that package managers and interpreters put among sources.
_INSTALLED = frozenset({"node_modules", "__pycache__"})
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
_GIT_SECONDS = 20.0


@dataclass
class FileSearch:
    """A search for files. hidden: the number of hidden entries that it left out."""

    hidden: int = 0
    _entries: int = field(default=0, repr=False)

    def files_of(self, folder: Path) -> list[Path]:
        """The files below a folder, in the order of their paths, without files that Git ignores.

        Raises UsageError if the folder cannot be read, or holds too many files.
        """
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
        # If the folder itself is ignored by Git, Git lists no file. The user has named it, so its
        # files are found without Git.
        return sorted(self._listed_by_git(folder) or self._bounded(self._walk(folder), folder))

    def files_like(self, pattern: str) -> list[Path]:
        """The files that match a pattern, in the order of their paths. Raises UsageError if there
        are too many.

        pattern: a path with `*`, `?`, `[…]`, `{…,…}`, or `**` for any number of folders. A hidden
        file matches only if its part of the pattern begins with a dot.
        """
        found: set[Path] = set()
        for form in _without_choices(pattern):
            path = Path(form).expanduser()
            anchor = Path(path.anchor)
            parts = path.parts[1:] if path.anchor else path.parts
            found.update(self._bounded(self._like(anchor, parts), pattern))
        return sorted(found)

    def _bounded(self, files: Iterator[Path], where: Path | str) -> list[Path]:
        found = list(islice(files, MOST_FILES + 1))
        if len(found) > MOST_FILES:
            raise _too_many(where)
        return found

    def _entries_of(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder; none if it cannot be read. Raises UsageError if the search has
        seen too many entries."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            return []
        self._entries += len(entries)
        if self._entries > _MOST_ENTRIES:
            raise _too_many(folder)
        return entries

    def _walk(self, folder: Path) -> Iterator[Path]:
        for entry in self._entries_of(folder):
            if entry.name.startswith("."):
                self.hidden += 1
            elif _is_folder(entry):
                if not _is_installed(entry):
                    yield from self._walk(folder / entry.name)
            elif _is_file(entry):
                yield folder / entry.name

    def _like(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        """The files below `folder` whose path matches `parts`, one for each level of folders."""
        part, *others = parts
        rest = tuple(others)
        if part == "**":
            # `**` also matches no folder at all.
            yield from self._like(folder, rest or ("*",))
            for entry in self._entries_of(folder):
                if _is_folder(entry) and entry.name[0] != "." and not _is_installed(entry):
                    yield from self._like(folder / entry.name, parts)
        elif not _WILD.search(part):
            if rest:
                yield from self._like(folder / part, rest)
            elif (folder / part).is_file():
                yield folder / part
        else:
            for entry in self._entries_of(folder):
                hidden = entry.name.startswith(".") and not part.startswith(".")
                if hidden or not fnmatchcase(entry.name, part):
                    continue
                if rest:
                    yield from self._like(folder / entry.name, rest)
                elif _is_file(entry):
                    yield folder / entry.name

    def _listed_by_git(self, folder: Path) -> list[Path] | None:
        """The files that Git does not ignore; None if Git cannot list them."""
        git = shutil.which("git")
        if git is None or not _is_in_work_tree(folder):
            return None
        # The repository may be somebody else's, so Git must not run a program that it configures:
        # neither one that watches for changes, nor one that fetches objects which are missing.
        command = [git, "-c", "core.fsmonitor=false", "-C", str(folder), "ls-files", "-z"]
        try:
            ran = subprocess.run(
                [*command, "--cached", "--others", "--exclude-standard", "--", "."],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "GIT_ALLOW_PROTOCOL": "none"},
                timeout=_GIT_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        names = dict.fromkeys(os.fsdecode(name) for name in ran.stdout.split(b"\0") if name)
        files: list[Path] = []
        for name in names:
            path = folder / name
            if any(part.startswith(".") for part in Path(name).parts):
                self.hidden += 1
            elif path.is_dir() and not path.is_symlink():
                # A nested repository, whose files the outer one does not list.
                files += self.files_of(path)
            elif path.is_file():
                files.append(path)
            if len(files) > MOST_FILES:
                raise _too_many(folder)
        return files


def is_pattern(text: str) -> bool:
    """Whether a path contains wildcards."""
    return _WILD.search(text) is not None


def _without_choices(pattern: str) -> list[str]:
    """The patterns that a pattern with `{…,…}` expands to."""
    pieces = _CHOICE.split(pattern)
    choices = [piece.split(",") if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return ["".join(chosen) for chosen in product(*choices)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_installed(entry: os.DirEntry[str]) -> bool:
    return entry.name in _INSTALLED or any(Path(entry.path, mark).exists() for mark in _MARKS)


def _is_in_work_tree(folder: Path) -> bool:
    try:
        whole = paths.resolved(folder)
    except OSError:
        return False
    return any((parent / ".git").exists() for parent in (whole, *whole.parents))


def _too_many(where: Path | str) -> UsageError:
    return UsageError(
        f"{where}: holds more than {MOST_FILES:,} files", hint="name a smaller folder, or a pattern"
    )
