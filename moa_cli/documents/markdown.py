"""Conversations as a Markdown document, for a reader and for a code forge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from moa_cli.core.conversation import SUMMARY, Citation, KeptConversation, Proposal, Turn
from moa_cli.core.files.attachments import attached
from moa_cli.core.outcomes import shortfall
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import REPORT, Report, layer_name, report_sections
from moa_cli.core.text import plural
from moa_cli.documents.text import answered, link_of, losses_of, proposal_facts, took, when
from moa_cli.terminal.decision import decision_line, placing_lines

_MARKS = re.compile(r"[\\`*_\[\]<>&~|$#]")
# A marker that starts a list at the beginning of a text.
_LISTS = re.compile(r"^(\d*)([-+=.)])")
_BACKTICKS = re.compile("`+")


def document(
    conversations: Iterable[KeptConversation], *, proposals: bool = False
) -> Iterator[str]:
    """The text of a document with `conversations`, piece by piece.

    proposals: whether each reply is followed by every answer of every layer, folded, with the
    reviews and the places of the proposals.
    """
    before = ""
    for conversation in conversations:
        yield before + _head(conversation)
        between = "\n"
        for kept in conversation.turns:
            yield between + "\n\n".join(_turn(kept.turn, proposals=proposals)) + "\n"
            between = "\n---\n\n"
        before = "\n"


def _head(conversation: KeptConversation) -> str:
    facts = [
        when(conversation.created),
        f"profile {_code(conversation.profile)}",
        plural(len(conversation.turns), "turn"),
        *(escaped(f"#{tag}") for tag in conversation.tags),
    ]
    return f"# {escaped(conversation.title)}\n\n{' · '.join(facts)}\n"


def _turn(turn: Turn, *, proposals: bool) -> Iterator[str]:
    yield _quoted(turn.user)
    if turn.parts:
        yield f"*attached: {escaped('; '.join(attached(turn.parts)))}*"
    if turn.reply and turn.reply.strip():
        yield _ended(sanitize(turn.reply).strip("\n"))
    if turn.citations:
        yield _sources(turn.citations)
    if ended := shortfall(turn):
        yield f"**({escaped(ended)})**"
    facts = [_code(answered(turn.model, turn.answered_by)), took(turn)]
    if any(facts):
        yield f"*{' · '.join(filter(None, facts))}*"
    if lost := losses_of(turn):
        yield f"*{escaped(lost)}*"
    if turn.decision is not None:
        yield f"*{escaped(decision_line(turn.decision))}*"
    if turn.report is not None:
        yield from _report(turn.report)
    if proposals:
        yield from _details(turn)
    if turn.summary_so_far:
        yield f"**{SUMMARY.capitalize()}**"
        yield _ended(sanitize(turn.summary_so_far).strip("\n"))


def _details(turn: Turn) -> Iterator[str]:
    """How the reply was made: the decision, each proposal and each review."""
    if turn.decision is not None and turn.decision.placings:
        yield "\n".join(map(_listed, placing_lines(turn.decision)))
    for layer in (*turn.proposals, turn.reviews):
        yield from map(_proposal, layer)


def _report(report: Report) -> Iterator[str]:
    """The report on where the proposals disagree: a list for each section."""
    yield f"**{REPORT.capitalize()}**"
    for heading, lines in report_sections(report):
        yield f"*{escaped(heading)}*"
        yield "\n".join("- " + _LISTS.sub(r"\1\\\2", escaped(line)) for line in lines)


def _listed(line: str) -> str:
    """A line that begins with its number, as an item of a list."""
    number, _, text = line.partition(" ")
    return f"{number} {escaped(text)}"


def _proposal(proposal: Proposal) -> str:
    name = layer_name(proposal.layer, proposal.purpose)
    head = f"{one_line(proposal.proposer)} ({name}): {proposal_facts(proposal)}"
    # A block of HTML ends at a blank line. Before it, Markdown has no meaning.
    parts = [f"<details><summary>{escape(head, quote=False)}</summary>"]
    if text := sanitize(proposal.text).strip("\n"):
        parts.append(_contained(text))
    if proposal.citations:
        parts.append(_sources(proposal.citations))
    return "\n\n".join([*parts, "</details>"])


def _sources(citations: Iterable[Citation]) -> str:
    lines = [f"{number}. {_source(citation)}" for number, citation in enumerate(citations, start=1)]
    return "\n".join(["Sources:", "", *lines])


def _source(citation: Citation) -> str:
    link, title = link_of(citation), escaped(citation.title or citation.url)
    if link is not None:
        # Inside angle brackets, only `<`, `>` and a backslash have a meaning.
        return f"[{title}](<{link}>)"
    return title if not citation.title else f"{title}: {escaped(citation.url)}"


def _quoted(prompt: str) -> str:
    text = _broken_as_typed(_contained(sanitize(prompt).strip("\n")))
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _broken_as_typed(text: str) -> str:
    """The text with hard line breaks, because Markdown would join the lines of a paragraph."""
    lines = text.split("\n")
    for token in _block_parser().parse(text):
        if token.type == "paragraph_open" and token.map:
            start, end = token.map
            for number in range(start, end - 1):
                lines[number] = lines[number].rstrip(" ") + "  "
    return "\n".join(lines)


def _contained(text: str) -> str:
    """The text as Markdown that cannot affect the text after it; fenced if it contains HTML."""
    return _fenced(text) if _holds_html(_parser().parse(text)) else _ended(text)


def _ended(text: str) -> str:
    """The text, with an open fence or HTML block closed, so that it cannot include the text after
    it."""
    last = _block_parser().parse(f"{text}\n\nend\n")[-1]
    if last.type == "fence":
        return f"{text}\n{last.markup}"
    return _fenced(text) if last.type == "html_block" else text


def _holds_html(tokens: Iterable[Token]) -> bool:
    return any(
        token.type in ("html_block", "html_inline") or _holds_html(token.children or ())
        for token in tokens
    )


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}markdown\n{text}\n{fence}"


def _code(text: str) -> str:
    """Inline code on one line, for any text; empty if the text is empty."""
    text = one_line(text)
    fence = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}" if text else ""


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def escaped(text: str) -> str:
    """Untrusted text on one line, with all characters escaped that Markdown would interpret."""
    return _MARKS.sub(r"\\\g<0>", one_line(text))


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"maxNesting": 50})


@cache
def _block_parser() -> MarkdownIt:
    # Only blocks are of interest. Inline parsing would take most of the time, and quadratic time
    # with many brackets.
    return MarkdownIt("commonmark", {"maxNesting": 50}).disable("inline")
