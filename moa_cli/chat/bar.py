"""The bar below the line of `moa chat`: what is in use, as much of it as the terminal has room for.

Its parts have an order of importance. Where the terminal is narrow, the least important part goes
first; the parts that stay keep their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from moa_cli.chat.attaching import attached_text
from moa_cli.core.conversation import Usage
from moa_cli.core.money import cost_text
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.core.tokens import rounded_tokens
from moa_cli.engine.history import HistoryUse
from moa_cli.profile import closing_text, short_name
from moa_cli.terminal.table import cell_len, fitted

if TYPE_CHECKING:
    from moa_cli.chat.loop import Chat

_BETWEEN = " · "


class BarPart(NamedTuple):
    """One part of the bar.

    importance: where the room is short, parts of higher numbers are shown before others. text: what
    the part says of a chat; empty if it has nothing to say. brief: the same where that has no room.
    """

    importance: int
    text: Callable[[Chat], str]
    brief: Callable[[Chat], str] = lambda chat: ""


def _profile(chat: Chat) -> str:
    return chat.session.profile.name


def _rounds(chat: Chat) -> str:
    return plural(chat.session.profile.rounds, "round")


def _models(chat: Chat) -> str:
    profile = chat.session.profile
    count = len(profile.layer(1)) if profile.rounds else 0
    return f"{count} → {closing_text(profile)}"


def _tokens(chat: Chat) -> str:
    return f"{sum(chat.session.spent.values(), Usage()).total_tokens:,} tokens"


def _cost(chat: Chat) -> str:
    used = sum(chat.session.spent.values(), Usage())
    return cost_text(used) if used.cost else ""


def _attachments(chat: Chat) -> str:
    return attached_text(chat.options.attachments)


def _file_tokens(chat: Chat) -> str:
    tokens = sum(file.tokens for file in chat.options.attachments)
    return f"files about {tokens:,} tokens" if tokens else ""


def _sending_key(chat: Chat) -> str:
    return "Alt-Enter sends" if chat.options.multiline else ""


def _tightest(chat: Chat) -> HistoryUse | None:
    """The model with the least room for the conversation; None if there is no limit."""
    if not chat.session.conversation.turns:
        return None
    use = chat.session.history_uses()[0]
    return None if use.context is None else use


def _context(chat: Chat) -> str:
    use = _tightest(chat)
    if use is None or use.context is None:
        return ""
    assumed = " assumed" if use.assumed else ""
    model = f"{short_name(use.model)}, {rounded_tokens(use.context)}{assumed}"
    return f"{_context_share(chat)} ({model})"


def _context_share(chat: Chat) -> str:
    use = _tightest(chat)
    if use is None:
        return ""
    return f"context {'full' if use.left_out else f'{use.share:.0%}'}"


def _left_out(chat: Chat) -> str:
    use = _tightest(chat)
    return f"{plural(use.left_out, 'turn')} left out" if use is not None and use.left_out else ""


# In the order in which they are shown.
_PARTS = (
    BarPart(60, _profile),
    BarPart(10, _rounds),
    BarPart(30, _models),
    BarPart(20, _tokens),
    BarPart(50, _context, _context_share),
    BarPart(35, _left_out),
    BarPart(70, _cost),
    BarPart(80, _attachments),
    BarPart(15, _file_tokens),
    BarPart(40, _sending_key),
)


def bar(chat: Chat, columns: int) -> str:
    """The text of the bar, in one line of at most `columns` - 1 columns."""
    room = max(1, columns - 1)
    shown: dict[int, str] = {}
    for place, part in sorted(enumerate(_PARTS), key=lambda item: -item[1].importance):
        for told in (part.text(chat), part.brief(chat)):
            more = {**shown, place: one_line(told)}
            if told and (not shown or cell_len(_line(more)) <= room):
                shown = more
                break
    return fitted(_line(shown), room)


def _line(parts: Mapping[int, str]) -> str:
    return _BETWEEN.join(parts[place] for place in sorted(parts))
