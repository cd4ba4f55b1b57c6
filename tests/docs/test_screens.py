"""The screens in the documentation are those of the program."""

from __future__ import annotations

import sys

import pytest

from tests.support.command import Moa
from tests.support.screens import PAGE, captures, comparable, screens_of
from tests.support.upstream import Upstream


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_page_shows_what_a_chat_shows(moa: Moa, upstream: Upstream) -> None:
    """If it does not any more: `python -m scripts.capture_screens`."""
    found = captures(moa, upstream)
    shown = screens_of(PAGE.read_text("utf-8"))
    assert shown.keys() == found.keys()
    for name, screen in found.items():
        assert comparable(shown[name]) == comparable(screen)
