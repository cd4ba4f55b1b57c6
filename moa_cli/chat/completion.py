"""The menu below the line while the user types. It offers slash commands with their arguments, and
paths: after `@` in a prompt, and for commands that take one (`/file`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    get_common_complete_suffix,
)
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples

from moa_cli.chat.commands.registry import Host, Suggestion, complete, find
from moa_cli.chat.named_files import begun_mention
from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import byte_count
from moa_cli.terminal.table import cell_len

# The terminal's own colours, so that the menu can be read on light and on dark terminals.
MENU_STYLE = {
    "completion-menu": "bg:default",
    "completion-menu.completion": "noinherit bg:default",
    "completion-menu.completion.current": "noinherit reverse",
    "completion-menu.meta.completion": "noinherit bg:default ansibrightblack",
    "completion-menu.meta.completion.current": "noinherit reverse",
    "completion-menu.usage": "ansibrightblack",
    "scrollbar.background": "noinherit bg:default",
    "scrollbar.button": "noinherit bg:ansibrightblack",
}
_ROWS, _MOST_ROWS = 8, 16
# Rows of the line and the bar below it, which stay when the menu is shown.
_OTHER_ROWS = 3
# The most suggestions of the menu. Users do not look through more, and each typed letter leaves
# fewer.
_MOST_SUGGESTED = 200
# The menu shows the usage of a command only up to this width. A longer one would leave no room for
# the help text.
_USAGE_CELLS = 12
_COLUMNS_FOR_USAGE = 60
_NAME = re.compile(r"/[\w-]*")
# The most entries of a folder that are read, and that are offered. More are of no help, and a
# network folder may be slow.
_MOST_READ, _MOST_OFFERED = 20_000, 200
_FLAGS = re.compile(r"\A(?:--[\w-]+\s+)*")


class CommandCompleter(Completer):
    """Completes slash commands and their values."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not is_command_begun(line):
            return
        found = islice(complete(line, self._host), _MOST_SUGGESTED)
        _, space, argument = line.partition(" ")
        yield from _values(found, argument) if space else _commands(found, line)


def is_command_begun(before: str) -> bool:
    """Whether the line up to the cursor is a slash command.

    A line that begins with two slashes or with the path of a file, and a text of several lines, are
    no commands.
    """
    name, _, argument = before.partition(" ")
    return _NAME.fullmatch(name) is not None and "\n" not in argument


def menu_rows(rows: int) -> int:
    """How many rows the menu may have on a screen with `rows` rows."""
    return max(0, min(_MOST_ROWS, max(_ROWS, rows // 3), rows - _OTHER_ROWS))


def complete_now(buffer: Buffer) -> None:
    """Complete the part of the line that all suggestions share, or choose the next row of the menu.

    Unlike prompt-toolkit's own function, this also works before the menu is shown, because a user
    who types fast presses Tab before that.
    """
    state = buffer.complete_state
    if state is not None and len(state.completions) > 1:
        buffer.complete_next()
        return
    event = CompleteEvent(completion_requested=True)
    found = list(buffer.completer.get_completions(buffer.document, event))
    if len(found) == 1:
        buffer.apply_completion(found[0])
        if _needs_argument(buffer.text):
            buffer.insert_text(" ")
        if buffer.text.endswith(" "):
            # Suggest the argument that comes next.
            buffer.start_completion(select_first=False)
    elif found:
        buffer.insert_text(get_common_complete_suffix(buffer.document, found))
        buffer.start_completion(select_first=False)


def needs_more(buffer: Buffer) -> bool:
    """Whether the user has just chosen a command in the menu that does nothing by itself."""
    state = buffer.complete_state
    chosen = state is not None and state.current_completion is not None
    return chosen and _needs_argument(buffer.text)


def _needs_argument(text: str) -> bool:
    """Whether this is the name of a command that does nothing by itself."""
    if not is_command_begun(text) or " " in text:
        return False
    try:
        return find(text[1:]).needs_argument
    except UsageError:
        return False


def _commands(found: Iterable[Suggestion], line: str) -> Iterator[Completion]:
    has_room = get_app().output.get_size().columns >= _COLUMNS_FOR_USAGE
    for suggestion in found:
        usage = find(suggestion.text[1:]).usage
        shown: StyleAndTextTuples = [("", suggestion.text)]
        if usage and has_room and cell_len(usage) <= _USAGE_CELLS:
            shown.append(("class:completion-menu.usage", f" {usage}"))
        yield Completion(suggestion.text, -len(line), display=shown, display_meta=suggestion.about)


def _values(found: Iterable[Suggestion], argument: str) -> Iterator[Completion]:
    # A row shows only the last word of a suggestion if the words before it are typed already.
    typed = re.sub(" +", " ", argument.lstrip()).lower()
    start = max(typed.rfind(" "), typed.rfind(",")) + 1
    for suggestion in found:
        same = suggestion.text.lower().startswith(typed[:start])
        yield Completion(
            suggestion.text,
            -len(argument),
            display=one_line(suggestion.text[start if same else 0 :]),
            display_meta=one_line(suggestion.about),
        )


@dataclass(frozen=True)
class FoundPath:
    """A file or a folder that completes a typed path.

    path: the whole path, with its beginning as the user typed it; a folder ends with a separator.
    name: its last part. kind: `folder`, or the size of the file.
    """

    path: str
    name: str
    kind: str


class PathCompleter(Completer):
    """Offers files and folders while a path is typed after `@`, and nothing elsewhere."""

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
            # After a folder, the path can go on, so there is no closing quotation mark.
            text = '"' * spaced + found.path + '"' * (spaced and found.kind != "folder")
            yield Completion(
                text, -len(typed) - quoted, display=found.name, display_meta=found.kind
            )


def path_words(host: Host, typed: str) -> list[Suggestion]:
    """The paths that complete the argument of a command, also after its flags; see
    `Command.values`."""
    path = _FLAGS.sub("", typed)
    before = typed.removesuffix(path)
    return [Suggestion(before + found.path, found.kind) for found in completed_paths(path)]


def is_mention_begun(before: str) -> bool:
    """Whether a path is being typed after `@` at the end of this text."""
    return not before.startswith("/") and begun_mention(before) is not None


def take_chosen(buffer: Buffer) -> bool:
    """If the user has chosen a path in the menu, keep it and go on with the line. Returns whether
    there was such a path; otherwise the line can be sent."""
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
    """The files and folders that complete the typed path. Their names begin with the last part of
    the path, without regard to case. If there are none, their names contain it. Hidden entries are
    offered only if that part begins with a dot, and names with control characters never."""
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
