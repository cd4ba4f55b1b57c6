"""A report as a web page that stands alone: no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from moa_cli.bench.report.section_charts import charts_of
from moa_cli.bench.report.sections import Section, Table, published_table
from moa_cli.core.sanitize import one_line
from moa_cli.documents.web_page import CLOSING, opening

__all__ = ["page"]


def page(sections: Sequence[Section], *, published: bool) -> Iterator[str]:
    """The text of the page, piece by piece. All charts have their tables behind them."""
    yield opening("Evaluation", ("moa_cli.bench.report", "report.css"))
    yield "<header>\n<h1>Evaluation</h1>\n</header>\n"
    for number, section in enumerate(sections):
        yield f'<section class="dataset">\n<h2>{_plain(section.dataset)}</h2>\n'
        if section.judged:
            yield f'<p class="facts">{_plain(f"judged {section.judged}")}</p>\n'
        yield _notes(section.notes)
        scores, rest = section.tables[:1], section.tables[1:]
        yield from map(_table, scores)
        for caption, drawn in charts_of(section, f"chart-{number}"):
            title = _plain(caption)
            chart = _scrolled(title, drawn)
            yield f"<figure>\n<figcaption>{title}</figcaption>\n{chart}</figure>\n"
        yield from map(_table, rest)
        yield "</section>\n"
        if published and section.published:
            yield '<section class="published">\n'
            yield f"<h2>{_plain(section.dataset)}: published figures</h2>\n"
            yield from map(_table, map(published_table, section.published))
            yield "</section>\n"
    yield CLOSING


def _table(table: Table) -> str:
    title = _plain(table.title)
    parts = [
        f"<table>\n<caption>{title}</caption>",
        f"<thead>\n{_row(table.heads, table.keys, head=True)}</thead>\n<tbody>",
        *(_row(one, table.keys, head=False) for one in table.rows),
        "</tbody>\n</table>\n",
    ]
    return _scrolled(title, "\n".join(parts)) + _notes(table.notes)


def _scrolled(title: str, inside: str) -> str:
    """What may be wider than the page; what can be scrolled must be reachable by keys."""
    return f'<div class="wide" role="group" tabindex="0" aria-label="{title}">\n{inside}</div>\n'


def _row(cells: Sequence[str], keys: int, *, head: bool) -> str:
    made = []
    for place, cell in enumerate(cells):
        scope = ' scope="col"' if head else ' scope="row"' if place < keys else ""
        kind = "" if place < keys else ' class="number"'
        tag = "th" if scope else "td"
        made.append(f"<{tag}{scope}{kind}>{_plain(cell)}</{tag}>")
    return f"<tr>{''.join(made)}</tr>\n"


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{_plain(one)}</li>\n" for one in notes)
    return f'<ul class="notes">\n{items}</ul>\n' if items else ""


def _plain(text: str) -> str:
    return escape(one_line(text))
