"""A browser opens a page full of hostile texts, and nothing in it acts or is complained of."""

from __future__ import annotations

from pathlib import Path

from tests.support.browser import opened
from tests.support.hostile import HOSTILE
from tests.support.web_pages import Page, everywhere, html


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
