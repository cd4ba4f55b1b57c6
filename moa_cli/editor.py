"""The user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from moa_cli.errors import UsageError
from moa_cli.text_files import line_feeds, read_text

__all__ = ["edited", "open_editor"]


def open_editor(path: Path) -> None:
    """Open a file in $VISUAL or $EDITOR (else vi), and wait until it is closed.

    Raises UsageError if the editor cannot be started, or ends with a status of failure.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(command), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the editor `{command}` could not be started: {error}", hint="set $EDITOR"
        ) from None
    if done.returncode != 0:
        raise UsageError(f"the editor `{command}` ended with status {done.returncode}")


def edited(text: str) -> str:
    """What the user's editor leaves of `text`, without line ends at its end.

    Raises UsageError if the editor fails, or saves what is no text.
    """
    # Only its owner can look into the folder.
    with tempfile.TemporaryDirectory(prefix="moa-") as folder:
        file = Path(folder) / "prompt.md"
        # In binary, since text would get the line ends of the platform; half a surrogate pair, as
        # a paste may hold it, is replaced.
        file.write_bytes(text.encode("utf-8", "replace"))
        open_editor(file)
        return line_feeds(read_text(file)).rstrip("\n")
