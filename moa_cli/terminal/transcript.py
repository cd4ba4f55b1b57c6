"""Stored turns as text to read again: raw, or drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from moa_cli.core.conversation import SUMMARY, Citation, Turn
from moa_cli.core.files.attachments import attached
from moa_cli.core.outcomes import cut_of, shortfall
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import REPORT, layer_name, report_markdown
from moa_cli.terminal.after_reply import source_lines
from moa_cli.terminal.decision import decision_line, placing_lines
from moa_cli.terminal.look import USUAL, Look

if TYPE_CHECKING:
    from moa_cli.markdown.drawing import Color

Kind = Literal["prompt", "head", "text", "note"]
# A part of a page. A passage of the kind `text` is drawn as Markdown, all others as plain text.
Passage = tuple[Kind, str]
_STYLES: dict[Kind, str] = {"prompt": "\x1b[1m", "head": "\x1b[2m", "note": "\x1b[2m"}


def turn_text(turn: Turn, *, proposals: bool = False) -> str:
    """Prompt and reply as raw text, sanitized for a terminal.

    proposals: with all answers of all layers, including reviews, and with the placings.
    """
    return "\n".join([text for _, text in turn_passages(turn, proposals=proposals)] + [""])


def drawn_passages(
    passages: Iterable[Passage], *, width: int, color: Color = "none", look: Look = USUAL
) -> list[str]:
    """The passages as lines, texts drawn as Markdown in the colours of `look`."""
    from moa_cli.markdown.drawing import render_markdown

    lines: list[str] = []
    for kind, text in passages:
        text = sanitize(text)
        if kind == "text":
            lines += render_markdown(text, width=width, color=color, palette=look.palette)
            continue
        # Styled line by line, because a pager resets styles at the end of a line.
        styled = color != "none" and text
        lines += [f"{_STYLES[kind]}{line}\x1b[0m" if styled else line for line in text.split("\n")]
    return lines


def spoken_text(turn: Turn, *, proposals: bool) -> str:
    """As `turn_text`, for a screen reader: without signs and drawn lines, which it would spell
    out."""
    lines = []
    for kind, text in turn_passages(turn, proposals=proposals):
        if kind == "prompt":
            lines.append(f"You: {text.removeprefix('› ')}")
        else:
            lines.append(f"{text.removeprefix('── ')}:" if kind == "head" else text)
    return "\n".join(lines)


def turn_passages(turn: Turn, *, proposals: bool) -> Iterator[Passage]:
    """The passages of a turn: prompt, reply and notes. proposals: see `turn_text`."""
    yield "prompt", f"› {sanitize(turn.user)}"
    if turn.parts:
        yield "note", f"(attached: {'; '.join(attached(turn.parts))})"
    yield "note", ""
    for layer in (*turn.proposals, turn.reviews) if proposals else ():
        for proposal in layer:
            name = layer_name(proposal.layer, proposal.purpose)
            yield "head", f"── {one_line(proposal.proposer)} ({name})"
            text = proposal.error.message if proposal.error else proposal.text
            yield "text", sanitize(text).strip()
            if cut := cut_of(proposal):
                yield "note", f"({cut})"
            yield from _sources(proposal.citations)
            yield "note", ""
    if turn.reply is not None:
        yield "text", sanitize(turn.reply).strip()
        yield from _sources(turn.citations)
    if turn.decision is not None:
        yield "note", f"({decision_line(turn.decision)})"
        if proposals:
            yield from (("note", line) for line in placing_lines(turn.decision))
    if turn.report is not None:
        yield "note", ""
        yield "head", f"── {REPORT}"
        yield "text", sanitize(report_markdown(turn.report))
    if told := shortfall(turn):
        yield "note", f"({told})"
    if turn.summary_so_far:
        yield "note", ""
        yield "head", f"── {SUMMARY}"
        yield "text", sanitize(turn.summary_so_far).strip()


def _sources(citations: tuple[Citation, ...]) -> Iterator[Passage]:
    if citations:
        yield "note", ""
        yield "note", "\n".join(["sources:", *source_lines(citations)])
