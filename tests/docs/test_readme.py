"""The README is a front door: short, true, and a way to every page."""

from __future__ import annotations

import re

from tests.support.pages import PAGES, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.encode()) <= 9 * 1024


def test_the_readme_links_the_page_of_files() -> None:
    assert "(docs/reference/files.md)" in README


def test_each_link_of_a_page_leads_to_a_file() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (*PAGES, ROOT / "CHANGELOG.md")
        for target in _LINK.findall(page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert lost == []


def test_each_page_of_the_site_is_in_its_navigation() -> None:
    shown = (ROOT / "mkdocs.yml").read_text("utf-8")
    decisions = (ROOT / "docs" / "decisions" / "index.md").read_text("utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs"))
        assert name in shown or f"({path.name})" in decisions, name


def test_the_index_names_each_page() -> None:
    docs = ROOT / "docs"
    named = {docs / target for target in _LINK.findall((docs / "index.md").read_text("utf-8"))}
    rooms = ("how-to", "reference", "explanation")
    assert [page for page in PAGES if page.parent.name in rooms and page not in named] == []
