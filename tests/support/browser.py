"""A browser without a window, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

__all__ = ["opened"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0", "--dump-dom"),
)


@cache
def browser() -> str:
    """A browser that runs here; skips the test where there is none."""
    for name in _NAMES:
        path = shutil.which(name)
        # Some systems put a program of that name there which only tells how to install one.
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"no browser here: none of {', '.join(_NAMES)} runs")


def opened(text: str, folder: Path) -> tuple[str, list[str]]:
    """What a browser makes of a page, and what it says on its console."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    command = [browser(), *_QUIET, f"--user-data-dir={folder / 'browser'}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
