"""Slash commands for the files that go with prompts."""

from __future__ import annotations

from dataclasses import replace

from moa_cli.chat.attaching import attach
from moa_cli.chat.commands.registry import Host, Section, Suggestion, command
from moa_cli.chat.named_files import named_paths
from moa_cli.chat.outcomes import Outcome
from moa_cli.chat.path_completion import path_words
from moa_cli.core.attaching import Attached
from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.table import cell_len, padded

_FLAGS = ("--keep", "--yes", "--allow-secrets")


def _files_words(host: Host, typed: str) -> list[Suggestion]:
    names = [(file.name, f"about {file.tokens:,} tokens") for file in host.options.attachments]
    return [
        Suggestion(f"{word} {name}", about)
        for word in ("drop", "keep")
        for name, about in (("all", "all files"), *names)
    ]


@command("file", "PATH [--keep]", path_words, section=Section.ASK)
def _file(host: Host, argument: str) -> Outcome:
    """Attach files, folders or patterns to the next prompt; --keep: to later ones, too."""
    given, rest = _flags_of(argument)
    if not rest:
        raise UsageError("/file needs a path")
    return attach(
        host,
        named_paths(rest),
        keep="--keep" in given,
        allow_secrets="--allow-secrets" in given,
        yes="--yes" in given,
    )


@command("files", "[drop WHICH | keep WHICH]", _files_words, section=Section.ASK)
def _files(host: Host, argument: str) -> None:
    """List the attached files, take some away, or keep some: by number, name, or `all`."""
    files = host.options.attachments
    word, _, which = argument.partition(" ")
    if not argument:
        host.say("\n".join(_rows(files)) or "no file is attached; /file PATH attaches one")
        return
    if word not in ("drop", "keep"):
        raise UsageError(f"{word!r} is neither `drop` nor `keep`", hint="/files drop 1")
    chosen = _chosen(files, which.strip())
    if word == "drop":
        files[:] = [file for file in files if file not in chosen]
        host.say(f"{_told(chosen)} no longer attached")
    else:
        files[:] = [replace(file, kept=True) if file in chosen else file for file in files]
        host.say(f"{_told(chosen)} kept for later prompts")


def _flags_of(argument: str) -> tuple[set[str], str]:
    """The flags before and after a path, and the path."""
    given: set[str] = set()
    rest = argument
    while True:
        for flag in _FLAGS:
            if f"{rest} ".startswith(f"{flag} "):
                rest = rest.removeprefix(flag).lstrip()
            elif rest.endswith(f" {flag}"):
                rest = rest.removesuffix(flag).rstrip()
            else:
                continue
            given.add(flag)
            break
        else:
            return given, rest


def _rows(files: list[Attached]) -> list[str]:
    width = max((cell_len(one_line(file.name)) for file in files), default=0)
    return [
        f"{number}  {padded(file.name, width)}  {file.kind}, about {file.tokens:,} tokens"
        f"{', kept' if file.kept else ''}"
        for number, file in enumerate(files, 1)
    ]


def _chosen(files: list[Attached], which: str) -> list[Attached]:
    """The files of a number, a name or a folder. Raises UsageError if there is none."""
    if not files:
        raise UsageError("no file is attached")
    if which in ("all", ""):
        if which or len(files) == 1:
            return list(files)
        raise UsageError("which one?", hint=f"1 to {len(files)}, a name, or all")
    if which.isdecimal() and 1 <= int(which) <= len(files):
        return [files[int(which) - 1]]
    folder = which.rstrip("/\\")
    found = [
        file
        for file in files
        if which in (file.name, file.place.name) or file.name.startswith(f"{folder}/")
    ]
    if not found:
        raise UsageError(f"{which} is not attached", hint="/files lists what is")
    return found


def _told(files: list[Attached]) -> str:
    if len(files) == 1:
        return f"{one_line(files[0].name)} is"
    return f"{plural(len(files), 'file')} are"
