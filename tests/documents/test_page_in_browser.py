"""A browser opens a page full of hostile texts, and nothing in it acts or is complained of."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.documents.test_documents import Page, everywhere, html
from tests.support.hostile import HOSTILE

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


def test_a_browser_finds_nothing_that_acts_in_hostile_texts(tmp_path: Path) -> None:
    text = html(*map(everywhere, HOSTILE.values()))
    shown, complaints = opened(text, tmp_path)
    assert complaints == []
    assert "<title>Conversations</title>" in shown
    # What the browser has built is what was written: no text has become an element.
    assert Page(shown).tags == Page(text).tags


def test_a_script_that_got_in_would_be_refused_and_seen(tmp_path: Path) -> None:
    script = "<script>document.title='acted'</script>"
    text = html(everywhere("x")).replace("</main>", f"{script}</main>")
    shown, complaints = opened(text, tmp_path)
    assert "<title>x</title>" in shown
    assert len(complaints) == 1
    assert "Content Security Policy" in complaints[0]
