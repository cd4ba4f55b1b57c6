"""Lets the user write a prompt in their own editor.

The prompt is in a private folder below the state folder, together with the backups and swap files
that many editors put beside the file. The folder is wiped once the editor has ended.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.scratch import scratch_folder, wipe_scratch_folders
from moa_cli.core.files.text import line_feeds, read_text
from moa_cli.core.text import with_hint
from moa_cli.terminal.plain import tell
from moa_cli.terminal.programs import open_editor


def edited(text: str) -> str:
    """Open the user's editor on a text. Returns the saved text without line ends at its end. If
    this fails, it returns the unchanged text, and a line on standard error says why."""
    wipe_leftovers()
    try:
        with _folder() as folder:
            file = folder / "prompt.md"
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as opened:
                # In binary, to keep the line ends. "replace", because a paste may contain half of a
                # surrogate pair.
                opened.write(text.encode("utf-8", "replace"))
            open_editor(file)
            return line_feeds(read_text(file)).rstrip("\n")
    except UsageError as error:
        trouble = with_hint(error.message, error.hint)
    except OSError as error:
        place = error.filename or "its file"
        trouble = f"the prompt could not be edited: {place}: {error.strerror or error}"
    tell(sys.stderr, trouble)
    return text


def _folder() -> contextlib.AbstractContextManager[Path]:
    try:
        return scratch_folder(paths.make_private(paths.drafts_dir()), "tmp")
    except OSError:
        # The user can edit even if the state folder cannot be written.
        return scratch_folder(None, "moa-")


def wipe_leftovers() -> None:
    """Wipe the prompts that killed processes left in an editor's files."""
    wipe_scratch_folders(paths.drafts_dir(), "*")
