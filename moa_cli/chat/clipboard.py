"""The clipboard: through the system's tool where there is one, else through the terminal."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys

from moa_cli.core.errors import UsageError

# tool, what it needs in the environment
_TOOLS = (
    (("pbcopy",), None),
    (("wl-copy",), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard"), "DISPLAY"),
    (("xsel", "--clipboard", "--input"), "DISPLAY"),
    (("clip.exe",), "WSL_DISTRO_NAME"),
    (("clip",), "WINDIR"),
)
# Terminals drop a longer sequence, or the rest of it.
_LONGEST_OSC52 = 74_994
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.M | re.S)


def last_code(text: str) -> str | None:
    """What stands in the last fenced block of `text`, or None if there is none."""
    blocks = _FENCE.findall(text)
    return blocks[-1][1].rstrip("\n") if blocks else None


def osc52(text: str, *, tmux: bool = False) -> str:
    """The sequence that puts `text` on the clipboard of the terminal's machine (xterm's
    control sequences, OSC 52); wrapped to pass through tmux."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    sequence = f"\x1b]52;c;{encoded}\x07"
    return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\" if tmux else sequence


def copy(text: str) -> str:
    """Put `text` on the clipboard; returns by what means.

    Raises UsageError if there is no tool and no terminal to ask.
    """
    # Over ssh a tool would fill the clipboard of the far machine.
    if not os.environ.get("SSH_CONNECTION"):
        for command, variable in _TOOLS:
            if (variable is None or os.environ.get(variable)) and _pipe(text, *command):
                return command[0]
    tmux = bool(os.environ.get("TMUX"))
    # tmux hands its buffer to the outer terminal, if that takes it.
    if tmux and _pipe(text, "tmux", "load-buffer", "-w", "-"):
        return "tmux"
    sequence = osc52(text, tmux=tmux)
    if not sys.stderr.isatty():
        raise UsageError("there is no clipboard tool, and no terminal to ask")
    if len(sequence) > _LONGEST_OSC52:
        raise UsageError(
            "the text is too long for the terminal's clipboard",
            hint="install xclip or wl-clipboard",
        )
    sys.stderr.write(sequence)
    sys.stderr.flush()
    return "the terminal, if it allows it"


def _pipe(text: str, *command: str) -> bool:
    """Whether the tool is there, and took the text."""
    if not shutil.which(command[0]):
        return False
    data = text.encode("utf-8", "replace")
    # Some stay in the background, and would hold a pipe of ours open.
    none = subprocess.DEVNULL
    done = subprocess.run(command, input=data, stdout=none, stderr=none, check=False)
    return done.returncode == 0
