"""Completes paths: after `@` in a prompt, and for commands that take a path (`/file`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from moa_cli.chat.commands.registry import Host, Suggestion
from moa_cli.chat.named_files import begun_mention
from moa_cli.core import paths
from moa_cli.core.text import byte_count

# Entries of a folder that are looked at, and that are offered: more help nobody, and a folder on
# another machine may be slow.
_MOST_READ, _MOST_OFFERED = 20_000, 200
_FLAGS = re.compile(r"\A(?:--[\w-]+\s+)*")


@dataclass(frozen=True)
class FoundPath:
    """A path that a begun one can become.

    path: the whole path, as the user began it; a folder ends with a separator. name: its last part.
    kind: `folder`, or how large the file is.
    """

    path: str
    name: str
    kind: str


class PathCompleter(Completer):
    """Offers files and folders where a path is being typed, and nothing elsewhere."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        before = document.text_before_cursor
        mention = begun_mention(before)
        if mention is None or not is_mention_begun(before):
            return
        quoted, typed = mention
        for found in completed_paths(typed):
            if '"' in found.path:
                continue
            spaced = quoted or " " in found.path
            # Within a folder the path goes on, so its quotation is left open.
            text = '"' * spaced + found.path + '"' * (spaced and found.kind != "folder")
            yield Completion(
                text, -len(typed) - quoted, display=found.name, display_meta=found.kind
            )


def path_words(host: Host, typed: str) -> list[Suggestion]:
    """The paths that can stand after a command, also behind its flags; see `Command.values`."""
    path = _FLAGS.sub("", typed)
    before = typed.removesuffix(path)
    return [Suggestion(before + found.path, found.kind) for found in completed_paths(path)]


def is_mention_begun(before: str) -> bool:
    """Whether a path is being typed after `@` at the end of this text."""
    return not before.startswith("/") and begun_mention(before) is not None


def take_chosen(buffer: Buffer) -> bool:
    """Keep the path that the user has chosen in the menu, and go on with the line; return whether
    there is such a path, else the line can be sent."""
    state = buffer.complete_state
    if state is None or state.current_completion is None:
        return False
    if not is_mention_begun(state.original_document.text_before_cursor):
        return False
    buffer.complete_state = None
    if state.current_completion.text.endswith("/"):
        buffer.start_completion(select_first=False)
    else:
        buffer.insert_text(" ")
    return True


def completed_paths(typed: str) -> list[FoundPath]:
    """The files and folders that the path typed so far can become: those whose name begins so,
    whatever the case of its letters; else those whose name holds it. Hidden ones are offered only
    if a dot is typed, and names with control characters never."""
    separators = "/" if os.sep == "/" else f"/{os.sep}"
    cut = max(typed.rfind(separator) for separator in separators) + 1
    folder, begun = typed[:cut], typed[cut:].casefold()
    if typed == "~":
        return [FoundPath("~/", "~/", "folder")]
    try:
        with os.scandir(paths.expand(folder)) as listing:
            entries = [
                entry
                for entry in islice(listing, _MOST_READ)
                if entry.name.isprintable() and (begun[:1] == "." or entry.name[0] != ".")
            ]
    except (OSError, ValueError):
        return []
    fitting = [entry for entry in entries if entry.name.casefold().startswith(begun)]
    fitting = fitting or [entry for entry in entries if begun in entry.name.casefold()]
    fitting.sort(key=lambda entry: (entry.name.casefold(), entry.name))
    return list(_described(folder, fitting[:_MOST_OFFERED]))


def _described(folder: str, entries: list[os.DirEntry[str]]) -> Iterator[FoundPath]:
    for entry in entries:
        try:
            if entry.is_dir():
                yield FoundPath(f"{folder}{entry.name}/", f"{entry.name}/", "folder")
            elif entry.is_file():
                size = byte_count(entry.stat().st_size)
                yield FoundPath(folder + entry.name, entry.name, size)
        except OSError:
            # A loop of links, or an entry that has just gone.
            continue
