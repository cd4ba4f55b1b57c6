"""Conversations as a self-contained web page: it has no script and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import chain

from moa_cli.core.conversation import SUMMARY, Citation, KeptConversation, Part, Proposal, Turn
from moa_cli.core.files.attachments import SHOWN_IMAGES, attached
from moa_cli.core.files.data_uris import kind_of
from moa_cli.core.outcomes import shortfall
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import REPORT, Report, answer_name, report_sections
from moa_cli.core.text import plural
from moa_cli.documents.html_prose import prose
from moa_cli.documents.text import answered, link_of, losses_of, moment, proposal_facts, took, when
from moa_cli.documents.web_page import CLOSING, opening
from moa_cli.terminal.decision import decision_line, placing_lines


def page(conversations: Iterable[KeptConversation], *, images: bool = False) -> Iterator[str]:
    """The text of a page with `conversations`, piece by piece. Several conversations are folded.

    images: whether a turn may contain images.
    """
    coming = iter(conversations)
    first, second = next(coming, None), next(coming, None)
    if first is not None and second is None:
        yield opening(one_line(first.title), images=images)
        yield f"<header>\n<h1>{_plain(first.title)}</h1>\n{_facts_of(first)}\n</header>\n"
        yield from map(_turn, (kept.turn for kept in first.turns))
    else:
        yield opening("Conversations", images=images)
        yield "<header>\n<h1>Conversations</h1>\n</header>\n"
        for conversation in chain(filter(None, (first, second)), coming):
            yield '<details class="conversation">\n<summary>'
            yield f"<h2>{_plain(conversation.title)}</h2>{_facts_of(conversation)}</summary>\n"
            yield from map(_turn, (kept.turn for kept in conversation.turns))
            yield "</details>\n"
    yield CLOSING


def _facts_of(conversation: KeptConversation) -> str:
    at = conversation.created
    return _facts(
        f'<time datetime="{moment(at).isoformat("T", "seconds")}">{when(at)}</time>',
        f"profile {_plain(conversation.profile)}" if conversation.profile else "",
        plural(len(conversation.turns), "turn"),
        *(_plain(f"#{tag}") for tag in conversation.tags),
    )


def _facts(*parts: str) -> str:
    return f'<p class="facts">{" · ".join(filter(None, parts))}</p>'


def _turn(turn: Turn) -> str:
    prompt = escape(sanitize(turn.user).strip("\n"))
    parts = [
        '<section class="turn">',
        f'<div class="prompt" role="group" aria-label="Prompt">{prompt}</div>',
        *map(_image, turn.parts),
    ]
    if turn.parts:
        parts.append(_facts(f"attached {_plain('; '.join(attached(turn.parts)))}"))
    if reply := _prose(turn.reply or ""):
        parts.append(reply)
    parts += _sources(turn.citations)
    if ended := shortfall(turn):
        parts.append(f'<p class="trouble">{escape(ended)}</p>')
    facts = [escape(answered(turn.model, turn.answered_by)), escape(took(turn))]
    if any(facts):
        parts.append(_facts(*facts))
    if lost := losses_of(turn):
        parts.append(f'<p class="facts">{_plain(lost)}</p>')
    if turn.decision is not None:
        parts.append(f'<p class="facts">{_plain(decision_line(turn.decision))}</p>')
    folded = (
        _folded_prose("reasoning", "Reasoning", turn.reasoning),
        _proposals(turn),
        _reviews(turn),
        _report(turn.report),
        _folded_prose("summary", SUMMARY.capitalize(), turn.summary_so_far),
    )
    return "\n".join([*parts, *folded, "</section>\n"])


def _image(part: Part) -> str:
    """An image as part of the page. An image on the web is only named, because the page fetches
    nothing."""
    if part.kind != "image" or kind_of(part.url) not in SHOWN_IMAGES:
        return ""
    return f'<img class="attached" src="{escape(part.url)}" alt="{_plain(part.name)}">'


def _sources(citations: Iterable[Citation]) -> list[str]:
    """The list of sources, if there are any."""
    items = "".join(f"<li>{_source(citation)}</li>\n" for citation in citations)
    return [f'<p class="facts">Sources</p>\n<ol class="facts">\n{items}</ol>\n'] if items else []


def _source(citation: Citation) -> str:
    link, text = link_of(citation), _plain(citation.title or citation.url)
    if link is not None:
        return f'<a href="{escape(link)}" rel="noopener noreferrer nofollow">{text}</a>'
    return f"{text}: {_plain(citation.url)}" if citation.title else text


def _folded_prose(kind: str, title: str, text: str) -> str:
    return _folded(kind, title, _prose(text)) if text.strip() else ""


def _prose(text: str) -> str:
    return f'<div class="prose">\n{prose(text)}</div>\n' if text.strip() else ""


def _folded(kind: str, summary: str, inside: str) -> str:
    return f'<details class="{kind}">\n<summary>{summary}</summary>\n{inside}</details>\n'


def _proposals(turn: Turn) -> str:
    layers = [layer for layer in turn.proposals if layer]
    if not layers:
        return ""
    summary = plural(sum(map(len, layers)), "proposal")
    if len(layers) > 1:
        summary += f" in {len(layers)} rounds"
    inside = ""
    for layer in layers:
        if len(layers) > 1:
            inside += f"<h3>Round {layer[0].layer}</h3>\n"
        inside += "".join(map(_proposal, layer))
    return _folded("proposals", summary, inside)


def _reviews(turn: Turn) -> str:
    """The reviews of the proposals, and the places of the proposals."""
    placings = placing_lines(turn.decision) if turn.decision is not None else []
    inside = "".join(f"{_plain(line)}<br>\n" for line in placings)
    inside = f'<p class="facts">{inside}</p>\n' if inside else ""
    inside += "".join(map(_proposal, turn.reviews))
    names = dict.fromkeys(answer_name(review.purpose) for review in turn.reviews)
    summary = [
        plural(sum(answer_name(review.purpose) == name for review in turn.reviews), name)
        for name in names
    ]
    return (
        _folded("proposals", ", ".join(summary) or "How it was decided", inside) if inside else ""
    )


def _report(report: Report | None) -> str:
    """The report on where the proposals disagree: a list for each section."""
    if report is None:
        return ""
    inside = ""
    for heading, lines in report_sections(report):
        items = "".join(f"<li>{_plain(line)}</li>\n" for line in lines)
        inside += f"<h3>{_plain(heading)}</h3>\n<ul>\n{items}</ul>\n"
    return _folded("proposals", REPORT.capitalize(), inside)


def _proposal(proposal: Proposal) -> str:
    model = answered(proposal.model, proposal.answered_by)
    name = one_line(proposal.proposer)
    if proposal.purpose:
        name = f"{name} ({answer_name(proposal.purpose)})"
    facts = " · ".join(filter(None, [model if model != name else "", proposal_facts(proposal)]))
    summary = f'<b>{escape(name)}</b> <span class="facts">{escape(facts)}</span>'
    inside = _prose(proposal.text) + "".join(_sources(proposal.citations))
    inside += _folded_prose("reasoning", "Reasoning", proposal.reasoning)
    if not inside:
        return f'<p class="proposal">{summary}</p>\n'
    return _folded("proposal", summary, inside)


def _plain(text: str) -> str:
    return escape(one_line(text))
