"""The bar below the line of `moa chat`: the mixture, tokens, context, cost and files.

The bar shows as many parts as the terminal has room for. The least important part is left out
first. The other parts keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from moa_cli.chat.attaching import attached_text
from moa_cli.chat.session import Session
from moa_cli.core.conversation import Usage
from moa_cli.core.money import cost_text
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.core.tokens import rounded_tokens
from moa_cli.profile import closing_text, short_name
from moa_cli.terminal.table import cell_len, fitted

if TYPE_CHECKING:
    from moa_cli.chat.loop import Chat

_BETWEEN = " · "


class _BarPart(NamedTuple):
    """One part of the bar.

    importance: if there is no room for all parts, those with higher numbers are shown. text: empty
    if the part is not shown. brief: a shorter text, used if there is no room for `text`.
    """

    importance: int
    text: str
    brief: str = ""


def _parts(chat: Chat) -> list[_BarPart]:
    """The parts in the order in which they are shown."""
    session, files = chat.session, chat.options.attachments
    profile = session.profile
    proposers = len(profile.layer(1)) if profile.rounds else 0
    used = sum(session.spent.values(), Usage())
    tokens = sum(file.tokens for file in files)
    return [
        _BarPart(60, profile.name),
        _BarPart(10, plural(profile.rounds, "round")),
        _BarPart(30, f"{proposers} → {closing_text(profile)}"),
        _BarPart(20, f"{used.total_tokens:,} tokens"),
        *_context(session),
        _BarPart(70, cost_text(used) if used.cost else ""),
        _BarPart(80, attached_text(files)),
        _BarPart(15, f"files about {tokens:,} tokens" if tokens else ""),
        _BarPart(40, "Alt-Enter sends" if chat.options.multiline else ""),
    ]


def _context(session: Session) -> list[_BarPart]:
    """The parts about the model whose context the conversation fills most."""
    if not session.conversation.turns:
        return []
    use = session.history_uses()[0]
    if use.context is None:
        # There is no limit.
        return []
    share = f"context {'full' if use.left_out else f'{use.share:.0%}'}"
    size = f"{rounded_tokens(use.context)}{' assumed' if use.assumed else ''}"
    left_out = f"{plural(use.left_out, 'turn')} left out" if use.left_out else ""
    return [
        _BarPart(50, f"{share} ({short_name(use.model)}, {size})", share),
        _BarPart(35, left_out),
    ]


def bar(chat: Chat, columns: int) -> str:
    """The text of the bar, in one line of at most `columns` - 1 columns."""
    room = max(1, columns - 1)
    shown: dict[int, str] = {}
    for place, part in sorted(enumerate(_parts(chat)), key=lambda item: -item[1].importance):
        for told in (part.text, part.brief):
            more = {**shown, place: one_line(told)}
            if told and (not shown or cell_len(_line(more)) <= room):
                shown = more
                break
    return fitted(_line(shown), room)


def _line(parts: Mapping[int, str]) -> str:
    return _BETWEEN.join(parts[place] for place in sorted(parts))
