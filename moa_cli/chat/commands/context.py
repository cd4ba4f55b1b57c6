"""Slash commands about the use of the models' contexts, and for summaries."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from moa_cli.chat.commands.registry import Host, Section, Suggestion, command
from moa_cli.chat.outcomes import Edit, Outcome, SumUp
from moa_cli.core.errors import UsageError
from moa_cli.core.text import plural
from moa_cli.engine.history import HistoryUse
from moa_cli.terminal.board.screen import terminal_size
from moa_cli.terminal.table import Column, spoken_rows, table_lines


@command("context", section=Section.CONVERSATION)
def _context(host: Host, argument: str) -> None:
    """Show how much of each model's context the conversation takes, and what is left out."""
    session = host.session
    conversation, profile = session.conversation, session.profile
    if not conversation.turns:
        raise UsageError("there are no turns yet")
    uses = session.history_uses()
    if host.options.accessible:
        *others, model = _columns(uses, " assumed")
        host.say("\n".join(spoken_rows(model, others)))
    else:
        columns = _columns(uses, "*")
        host.show("\n".join(table_lines(columns, terminal_size(sys.stderr)[0])))
        host.say("")
    if not profile.multi_turn:
        host.say("multi_turn is off: no earlier turn is sent")
    else:
        sent = uses[0]
        turns, tokens = plural(sent.turns, "turn"), f"about {sent.tokens:,} tokens"
        least = f" (max_history is {profile.max_history})" if profile.max_history else ""
        host.say(f"sent with the next prompt: {turns} of the conversation, {tokens}{least}")
    if conversation.first_sent and profile.multi_turn:
        summed_up = plural(conversation.first_sent, "turn")
        host.say(f"the models get a summary in place of {summed_up} before: /compact show")
    host.say("room: the part of the context that is left besides the answer and the proposals")
    if any(use.assumed for use in uses):
        mark = "assumed" if host.options.accessible else "*"
        host.say(
            f"{mark}: unknown, assumed by the setting default_context; `context` of the model in"
            " the profile sets it"
        )


_COMPACT_WORDS = (
    Suggestion("show", "print the summary"),
    Suggestion("edit", "write the summary in your editor"),
    Suggestion("off", "remove the summary: its turns are sent again"),
)


@command(
    "compact", "[show | edit | off | WHAT TO KEEP]", _COMPACT_WORDS, section=Section.CONVERSATION
)
def _compact(host: Host, argument: str) -> Outcome:
    """Summarize all turns but the last in one call; show, edit or remove the summary."""
    if argument not in ("show", "edit", "off"):
        return SumUp(argument)
    session = host.session
    conversation = session.conversation
    if argument == "off":
        count = conversation.first_sent
        host.kept.rewrite(session.write_summary(""))
        now = session.conversation.first_sent
        again = plural(count - now, "turn")
        host.say(
            f"the summary is removed: {again} {'is' if count - now == 1 else 'are'} sent again"
            + (", after the earlier summary" if now else "")
        )
        return None
    if not conversation.summary:
        raise UsageError("there is no summary", hint="/compact makes one")
    if argument == "edit":
        return Edit(conversation.summary, summary=True)
    host.say(f"summary of {plural(conversation.first_sent, 'turn')}:")
    host.show(conversation.summary)
    return None


def _columns(uses: Sequence[HistoryUse], assumed: str) -> list[Column]:
    """The columns of the table, with a row for each model. assumed: the mark after a context that
    is assumed."""

    def numbers(values: Sequence[int | None]) -> list[str]:
        return ["" if value is None else f"{value:,}" for value in values]

    limited = [use.context is not None for use in uses]
    contexts = [
        "unlimited" if use.context is None else f"{use.context:,}{assumed if use.assumed else ''}"
        for use in uses
    ]
    rooms = [use.room if known else None for use, known in zip(uses, limited, strict=True)]
    shares = [f"{use.share:.0%}" if known else "" for use, known in zip(uses, limited, strict=True)]
    left_out = [use.left_out or None for use in uses]
    return [
        Column("full", shares, right=True),
        Column("room", numbers(rooms), right=True, spare=1),
        Column("context", contexts, right=True),
        Column("left out", numbers(left_out), right=True),
        Column("model", [use.model for use in uses]),
    ]
