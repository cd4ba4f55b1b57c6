"""Reads the files, folders and patterns that a user names for a prompt.

From a folder or a pattern, only texts, images and PDF files are taken, and a note says what was
left out. A file that is named by itself is either sent or refused with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.conversation import Part
from moa_cli.core.errors import UsageError
from moa_cli.core.files.attachments import content_of, part_of
from moa_cli.core.files.search import FileSearch, is_pattern
from moa_cli.core.files.secrets import secret_kind
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.core.tokens import IMAGE_TOKENS, estimate_tokens

# The most bytes that all files of one folder or pattern may have together.
MOST_FOUND_BYTES = 100_000_000
# Of a longer text, only this many letters are counted. The rest is assumed to be like them.
_COUNTED = 1_000_000
_MOST_NAMED = 3


@dataclass(frozen=True)
class Attached:
    """A file that goes with a prompt.

    name: its path, as the user would write it. secret: the kind of secret that it seems to contain,
    in a few words; "" if none. named: whether the user named the file itself, and not a folder or a
    pattern. kept: whether it also goes with later prompts. state: the time of its last change, and
    its size; None if they are not known.
    """

    name: str
    part: Part
    secret: str = ""
    named: bool = True
    kept: bool = False
    state: tuple[int, int] | None = None

    @cached_property
    def tokens(self) -> int:
        return part_tokens(self.part)

    @property
    def kind(self) -> str:
        """`text`, `image` or `PDF`."""
        return "PDF" if self.part.kind == "file" else self.part.kind

    @cached_property
    def place(self) -> Path:
        """The resolved path, by which two names of one file are recognised as the same file."""
        return _place(Path(self.name))

    def current(self) -> Attached:
        """The file as it is now; the same object if it has not changed. Raises UsageError if it
        cannot be read."""
        path = Path(self.name)
        if self.state is None or _state(path) == self.state:
            return self
        return replace(_read(path, [], named=self.named), kept=self.kept)


@dataclass
class Gathered:
    """Files to attach, in the order in which they were named, and notes on what was left out."""

    files: list[Attached] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def secrets(self) -> list[Attached]:
        return [file for file in self.files if file.secret]

    @property
    def tokens(self) -> int:
        return sum(file.tokens for file in self.files)

    def drop_found_secrets(self) -> list[Attached]:
        """Remove the files that seem to be secret and were found by a folder or a pattern. Returns
        them."""
        dropped = [file for file in self.files if file.secret and not file.named]
        self.files = [file for file in self.files if file not in dropped]
        return dropped


def gather(
    names: Iterable[str], *, sees: Callable[[], bool] = lambda: True, pipes: bool = False
) -> Gathered:
    """Read the files that a user names.

    names: paths of files and folders, and patterns such as `src/**/*.py`. If there is a file with
    the name of a pattern, the file is meant. sees: returns whether a model can see images; if not,
    the images of folders are left out. pipes: whether a pipe may be named; reading waits for its
    end. Raises UsageError if a file that is named by itself cannot be attached, no file matches a
    pattern, a folder has no file to attach, or the files are too many or too large.
    """
    gathered = Gathered()
    places: set[Path] = set()
    for name in names:
        path, found = _resolved(name)
        if found is None:
            if not pipes and paths.is_pipe(path):
                raise UsageError(f"{path}: is a pipe, not a file")
            file = _read(path, gathered.notes, named=True)
            gathered.files.append(file)
            places.add(file.place)
            continue
        begun = len(gathered.files)
        left_out = _take_found(found, gathered, places, sees=sees)
        if len(gathered.files) == begun and (left_out or not found.files):
            raise UsageError(
                f"{path}: holds no file that can be attached",
                hint="; ".join(left_out) or "name a file",
            )
        if left_out:
            gathered.notes.append(f"{path}: left out {'; '.join(left_out)}")
    return gathered


def part_tokens(part: Part) -> int:
    if part.kind == "image":
        return IMAGE_TOKENS
    if len(part.text) <= _COUNTED:
        return estimate_tokens(part.text)
    return round(estimate_tokens(part.text[:_COUNTED]) * len(part.text) / _COUNTED)


@dataclass(frozen=True)
class _Found:
    files: list[Path]
    hidden: int


def _resolved(name: str) -> tuple[Path, _Found | None]:
    """The path that a name means, and the files of it if it is a folder or a pattern."""
    try:
        path = Path(name)
        # Checked here once. Otherwise each function that looks at the file raises its own error.
        if "\0" in name:
            raise ValueError
        if not path.is_symlink() and not path.exists():
            path = path.expanduser()
        search = FileSearch()
        if path.is_dir():
            return path, _Found(search.files_of(path), search.hidden)
        if not is_pattern(name) or path.is_symlink() or path.exists():
            return path, None
        files = search.files_like(name)
    except OSError:
        # The error comes when the file is read.
        return Path(name), None
    except (RuntimeError, ValueError):
        # An unknown home, a NUL character, or half of a surrogate pair.
        raise UsageError(f"{one_line(name)}: is not a path") from None
    if not files:
        raise UsageError(f"{name}: no file has such a name")
    return path, _Found(files, search.hidden)


def _take_found(
    found: _Found, gathered: Gathered, places: set[Path], *, sees: Callable[[], bool]
) -> list[str]:
    """Add the files of a folder or a pattern. Returns the kinds of entries that were left out, in a
    few words each."""
    unread: list[str] = []
    images: list[str] = []
    size = 0
    for path in found.files:
        place = _place(path)
        if place in places:
            continue
        places.add(place)
        try:
            size += path.stat().st_size
            file = _read(path, gathered.notes, named=False)
        except (OSError, UsageError):
            unread.append(path.name)
            continue
        if file.part.kind == "image" and not sees():
            images.append(path.name)
            continue
        if size > MOST_FOUND_BYTES:
            raise UsageError(
                f"the files have more than {MOST_FOUND_BYTES:,} bytes together",
                hint="name a smaller folder, or a pattern",
            )
        gathered.files.append(file)
    left_out: list[str] = []
    if found.hidden:
        entries = "entry" if found.hidden == 1 else "entries"
        left_out.append(f"{found.hidden:,} hidden {entries}")
    if unread:
        left_out.append(f"{plural(len(unread), 'file')} that cannot be sent ({_some(unread)})")
    if images:
        left_out.append(f"{plural(len(images), 'image')} that no model sees ({_some(images)})")
    return left_out


def _read(path: Path, notes: list[str], *, named: bool) -> Attached:
    if not named and paths.is_pipe(path):
        raise UsageError(f"{path}: is a pipe, not a file")
    state = _state(path)
    data = content_of(path)
    part = part_of(data, str(path), tell=notes.append)
    return Attached(str(path), part, secret_kind(path, data) or "", named, state=state)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _place(path: Path) -> Path:
    try:
        return paths.resolved(paths.expand(str(path)))
    except OSError:
        return path


def _some(names: Sequence[str]) -> str:
    shown = [one_line(name, 40) for name in names[:_MOST_NAMED]]
    return ", ".join([*shown, "…"] if len(names) > _MOST_NAMED else shown)


def told(files: Sequence[Attached]) -> str:
    """The files that go with a prompt, as a text: `a.py, b.py (about 1,200 tokens)`; only their
    number if there are many."""
    tokens = f"about {sum(file.tokens for file in files):,} tokens"
    if len(files) > _MOST_NAMED:
        return f"{len(files):,} files ({tokens})"
    return f"{', '.join(one_line(file.name, 60) for file in files)} ({tokens})"
