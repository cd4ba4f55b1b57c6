"""The user's own programs: the pager for long texts, the editor for files."""

from __future__ import annotations

import codecs
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import sanitize
from moa_cli.terminal.suspension import handling, lent
from moa_cli.terminal.table import cell_len
from moa_cli.terminal.tty import can_redraw


def page(lines: Sequence[str], stream: TextIO | None = None) -> str | None:
    """Print lines. If `stream` is a terminal with too few rows for them, print them through $PAGER
    or `less`.

    lines: they must contain no escape sequences except colours. stream: None for standard output.
    Returns an error of the pager as a sentence, or None. After an error, the lines are printed
    without the pager.
    """
    stream = stream or sys.stdout
    text = "".join(f"{line}\n" for line in lines)
    command = os.environ.get("PAGER", "less" if shutil.which("less") else "")
    trouble = None
    if command.strip() and can_redraw(stream) and _is_long(lines, stream):
        trouble = _through(command, text, stream)
        if trouble is None:
            return None
    stream.write(text)
    stream.flush()
    return trouble


def _is_long(lines: Sequence[str], stream: TextIO) -> bool:
    columns, rows = os.get_terminal_size(stream.fileno())
    wrapped = (-(-cell_len(sanitize(line)) // max(1, columns)) for line in lines)
    # The last row stays free for the prompt of the shell.
    return sum(max(1, height) for height in wrapped) >= rows


def _through(command: str, text: str, stream: TextIO) -> str | None:
    """Show text in the pager. Returns the error if that failed."""
    stream.flush()
    # The options that git sets for less: exit if all fits, show colours, keep the text on the
    # screen. With LC_ALL=C, less would show the bytes of signs that are not ASCII.
    utf8 = {"LESSCHARSET": "utf-8"} if codecs.lookup(stream.encoding).name == "utf-8" else {}
    environment = {"LESS": "FRX", **utf8, **os.environ}
    data = text.encode(stream.encoding, "replace")
    try:
        # The pager handles Ctrl-C itself. The handler here does nothing; SIG_IGN would be inherited
        # by the pager.
        with handling({signal.SIGINT: lambda number, frame: None}), lent():
            done = subprocess.run(
                shlex.split(command), input=data, stdout=stream, env=environment, check=False
            )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return f"the pager `{command}` could not be started: {why}"
    return f"the pager `{command}` ended with status {done.returncode}" if done.returncode else None


def open_editor(path: Path) -> None:
    """Open a file in $VISUAL or $EDITOR (else vi), and wait until it is closed.

    Raises UsageError if the editor cannot be started, or ends with a status of failure.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with lent():
            done = subprocess.run([*shlex.split(command), str(path)], check=False)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the editor `{command}` could not be started: {why}", hint="set $EDITOR"
        ) from None
    if done.returncode != 0:
        raise UsageError(f"the editor `{command}` ended with status {done.returncode}")
