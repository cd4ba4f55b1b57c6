"""The user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from moa_cli.core.errors import UsageError


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
