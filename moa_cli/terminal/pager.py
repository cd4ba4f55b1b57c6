"""Long texts, through the user's pager."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from moa_cli.core.sanitize import sanitize
from moa_cli.terminal.cells import cell_len
from moa_cli.terminal.tty import can_redraw

# As git does it: leave if all fits, show colours, keep the text on the screen.
_LESS = "FRX"


def page(lines: Sequence[str]) -> str | None:
    """Print lines, through $PAGER or `less` if standard output is a terminal too low for them.

    Nothing in them may act on the terminal but colours. Returns what was wrong with the pager,
    in a sentence, or None; the lines are printed then all the same.
    """
    text = "".join(f"{line}\n" for line in lines)
    command = os.environ.get("PAGER", "less" if shutil.which("less") else "")
    trouble = None
    if command.strip() and can_redraw(sys.stdout) and _is_long(lines):
        trouble = _through(command, text)
        if trouble is None:
            return None
    sys.stdout.write(text)
    sys.stdout.flush()
    return trouble


def _is_long(lines: Sequence[str]) -> bool:
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    wrapped = (-(-cell_len(sanitize(line)) // max(1, columns)) for line in lines)
    # The last row is the shell's.
    return sum(max(1, height) for height in wrapped) >= rows


def _through(command: str, text: str) -> str | None:
    """Show text in the pager; what went wrong if it could not be shown."""
    sys.stdout.flush()
    environment = {"LESS": _LESS, **os.environ}
    data = text.encode(sys.stdout.encoding, "replace")
    try:
        with _interrupt_is_the_pager_s():
            done = subprocess.run(shlex.split(command), input=data, env=environment, check=False)
    except OSError as error:
        return f"the pager `{command}` could not be started: {error.strerror}"
    except ValueError as error:
        return f"the pager `{command}` could not be started: {error}"
    return f"the pager `{command}` ended with status {done.returncode}" if done.returncode else None


@contextmanager
def _interrupt_is_the_pager_s() -> Iterator[None]:
    """While inside, Ctrl-C is a key of the pager's, and does not end this process."""

    def ignore(number: int, frame: Any) -> None:
        """Not SIG_IGN, which the pager would inherit."""

    before = signal.signal(signal.SIGINT, ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
