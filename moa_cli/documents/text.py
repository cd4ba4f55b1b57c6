"""The words about turns in exported conversations, shared by the formats."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timezone

from moa_cli.core.conversation import Citation, Proposal, Turn
from moa_cli.core.money import cost_text
from moa_cli.core.outcomes import cut_of, names_the_lost
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.usage import usage_line

_WEB_ADDRESS = re.compile(r"https?://[!#-;=?-\[\]_a-z~\u00a1-\ud7ff]+", re.IGNORECASE)


def moment(at: float) -> datetime:
    """Seconds since 1970 as local time of this machine, with its UTC offset."""
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return local.replace(tzinfo=timezone(local.utcoffset() or UTC.utcoffset(None)))


def when(at: float) -> str:
    """A moment with its time zone, for readers anywhere: `2026-03-01 14:05 UTC+01:00`."""
    return f"{moment(at):%Y-%m-%d %H:%M %Z}"


def answered(model: str | None, answered_by: str | None) -> str:
    """The name of the model in the profile, and the name that its endpoint reports if that
    differs."""
    name, real = one_line(model or ""), one_line(answered_by or "")
    return f"{name} ({real})" if real and not name.endswith(real) else name


def losses_of(turn: Turn) -> str:
    """What a turn has lost, and what became of it; empty if it is whole."""
    if not turn.lost:
        return ""
    lead = "lost" if names_the_lost(turn.lost[0]) else "degraded:"
    return f"{lead} {'; '.join(turn.lost)}"


def took(turn: Turn) -> str:
    """Calls, tokens, cost and seconds; empty if no call was counted."""
    return usage_line(turn.usage, turn.seconds, turn.ledger) if turn.usage.calls else ""


def link_of(citation: Citation) -> str | None:
    """The address of a source if it is a web address that may become a link; else None."""
    return citation.url if _WEB_ADDRESS.fullmatch(citation.url) else None


def proposal_facts(proposal: Proposal) -> str:
    """Seconds, tokens and cost of a proposal, and how it was cut; or why it was lost."""
    if proposal.error is not None:
        return f"lost: {one_line(proposal.error.message)}"
    usage = proposal.usage
    parts = [f"{proposal.seconds:.1f} s"]
    if usage.completion_tokens:
        about = "~" if usage.estimated_completion_tokens else ""
        parts.append(about + plural(usage.completion_tokens, "token"))
    if usage.cost:
        parts.append(cost_text(usage))
    if cut := cut_of(proposal):
        parts.append(cut)
    return ", ".join(parts)
