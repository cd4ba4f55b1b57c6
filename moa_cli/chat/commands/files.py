"""Slash commands for files: to attach files to prompts, and to write files."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

from moa_cli.chat.attaching import attach
from moa_cli.chat.commands.registry import Host, Section, Suggestion, command
from moa_cli.chat.completion import path_words
from moa_cli.chat.named_files import named_paths
from moa_cli.chat.outcomes import Outcome
from moa_cli.chat.session import Session
from moa_cli.core import paths
from moa_cli.core.conversation import Conversation, KeptConversation, KeptTurn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.files.attaching import Attached
from moa_cli.core.files.new_file import check_is_text, new_file, why_unfit
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.documents.export import Contents, format_of, written
from moa_cli.profile import dump
from moa_cli.terminal.table import cell_len, padded

_FORCE = "--force"
_TITLE_LENGTH = 40
# A flag at the beginning or at the end of the argument.
_FLAG = re.compile(r"\A--(?:keep|yes|allow-secrets)(?: \s*|\Z)|\s* --(?:keep|yes|allow-secrets)\Z")


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
    while found := _FLAG.search(argument):
        given.add(found[0].strip())
        argument = argument[: found.start()] + argument[found.end() :]
    return given, argument


def _rows(files: list[Attached]) -> list[str]:
    width = max((cell_len(one_line(file.name)) for file in files), default=0)
    return [
        f"{number}  {padded(file.name, width)}  {file.kind}, about {file.tokens:,} tokens"
        f"{', kept' if file.kept else ''}"
        for number, file in enumerate(files, 1)
    ]


def _chosen(files: list[Attached], which: str) -> list[Attached]:
    """The attached files with that number or name, or in that folder. Raises UsageError if there
    are none."""
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
        raise UsageError(f"{which} is not attached", hint="/files lists the attached files")
    return found


def _told(files: list[Attached]) -> str:
    if len(files) == 1:
        return f"{one_line(files[0].name)} is"
    return f"{plural(len(files), 'file')} are"


@command("export", f"[[{_FORCE}] PATH]", path_words, section=Section.CONVERSATION)
def _export(host: Host, argument: str) -> None:
    """Write the conversation as Markdown, a web page (.html) or JSON (.json)."""
    conversation = _conversation(host)
    force, path = _destination(argument)
    path = path or _free_path(conversation.title)
    format_ = format_of(path)
    with new_file(path, force=force, error=StoreError) as file:
        contents = Contents.of(conversation)
        for piece in written([conversation], format_, contents):
            file.write(piece.encode("utf-8", "replace"))
    host.say(f"wrote {path.resolve()}")


@command("save", f"[[{_FORCE}] PATH]", path_words, section=Section.ASK)
def _save(host: Host, argument: str) -> None:
    """Write the last reply to a file; without PATH, keep a conversation that is not saved."""
    force, path = _destination(argument)
    if path is None:
        _keep(host)
        return
    last = host.session.last
    if last is None or not last.reply:
        raise UsageError("there is no reply to save")
    check_is_text(path)
    with new_file(path, force=force, error=StoreError) as file:
        file.write(f"{sanitize(last.reply).rstrip()}\n".encode("utf-8", "replace"))
    host.say(f"wrote {path.resolve()}")


def _keep(host: Host) -> None:
    if host.kept.store is None:
        session = host.session
        session.go_on(host.kept.begin_saving(_with_last(session), session.profile))
        host.say("this conversation is saved from now on")
    if host.kept.id is not None:
        host.kept.check_saved()
        host.say(f"it is in the history: moa chat --cid {host.kept.id}")
    elif host.kept.store is not None:
        host.say("it is saved with its first turn")


def _with_last(session: Session) -> Conversation:
    """The conversation with its last turn, even if it has no reply, because its prompt can be
    asked again."""
    conversation, last = session.conversation, session.last
    if last is None or last in conversation.turns:
        return conversation
    return replace(conversation, turns=(*conversation.turns, last))


def _destination(argument: str) -> tuple[bool, Path | None]:
    """Whether a file may be overwritten, and the file; None if none is named."""
    named = re.sub(rf"\A{_FORCE}(?!\S)|(?<!\S){_FORCE}\Z", "", argument)
    force = named != argument
    named = named.strip().strip("'\"")
    return force, paths.expand(named) if named else None


def _conversation(host: Host) -> KeptConversation:
    """The conversation as it is stored; if it is not stored, as it is in memory."""
    from moa_cli.store.archive import read
    from moa_cli.store.store import new_id

    session = host.session
    if not session.conversation.turns:
        raise UsageError("there is nothing to export yet")
    if host.kept.store is not None and host.kept.id is not None:
        for stored in read(host.kept.store, [host.kept.id]):
            return replace(stored, turns=list(stored.turns))
    now, settings = time.time(), dump(session.profile)
    turns = [KeptTurn(turn, now, settings) for turn in session.conversation.turns]
    title = one_line(turns[0].turn.user, _TITLE_LENGTH)
    return KeptConversation(new_id(), title, session.profile.name, now, now, turns)


def _free_path(title: str) -> Path:
    """The path of a new file in the working folder, named after the conversation."""
    name = re.sub(r"[^\w]+", "-", title.lower()).strip("-_")[:_TITLE_LENGTH].strip("-_")
    if why_unfit(name):
        name = f"chat-{name}"
    number = 1
    while True:
        path = Path(f"{name or 'conversation'}{f'-{number}' if number > 1 else ''}.md")
        if not path.exists():
            return path
        number += 1
