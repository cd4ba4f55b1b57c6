"""Copies to the clipboard, with a tool of the system if there is one, else via the terminal."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys

from moa_cli.core.errors import UsageError

# Each tool with the environment variable that it needs.
_TOOLS = (
    (("pbcopy",), None),
    (("wl-copy",), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard"), "DISPLAY"),
    (("xsel", "--clipboard", "--input"), "DISPLAY"),
    (("clip.exe",), "WSL_DISTRO_NAME"),
    (("clip",), "WINDIR"),
)
# Terminals drop longer sequences, or a part of them.
_LONGEST_OSC52 = 74_994


def osc52(text: str, *, tmux: bool = False) -> str:
    """The sequence that copies `text` to the clipboard of the terminal's machine.

    See OSC 52 in xterm's control sequences. tmux: wrap it to pass through tmux.
    """
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    sequence = f"\x1b]52;c;{encoded}\x07"
    return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\" if tmux else sequence


def copy(text: str) -> str:
    """Copy `text` to the clipboard. Returns the tool that was used, in words. Raises UsageError if
    there is neither a tool nor a terminal."""
    # Over ssh, a tool would use the clipboard of the remote machine.
    if not os.environ.get("SSH_CONNECTION"):
        for command, variable in _TOOLS:
            if (variable is None or os.environ.get(variable)) and _pipe(text, *command):
                return command[0]
    tmux = bool(os.environ.get("TMUX"))
    # tmux passes its buffer on to the outer terminal, if that accepts it.
    if tmux and _pipe(text, "tmux", "load-buffer", "-w", "-"):
        return "tmux"
    sequence = osc52(text, tmux=tmux)
    if not sys.stderr.isatty():
        raise UsageError("there is neither a clipboard tool nor a terminal")
    if len(sequence) > _LONGEST_OSC52:
        raise UsageError(
            "the text is too long for the terminal's clipboard",
            hint="install xclip or wl-clipboard",
        )
    sys.stderr.write(sequence)
    sys.stderr.flush()
    return "the terminal, if it allows it"


def _pipe(text: str, *command: str) -> bool:
    """Pass the text to a tool. Returns whether that worked."""
    if not shutil.which(command[0]):
        return False
    data = text.encode("utf-8", "replace")
    # Some tools stay in the background, and would keep a pipe open.
    none = subprocess.DEVNULL
    return subprocess.run(command, input=data, stdout=none, stderr=none).returncode == 0
