"""Slash commands for typing, and for showing replies."""

from __future__ import annotations

from moa_cli.chat.commands.registry import Host, Section, Suggestion, command, switched
from moa_cli.chat.earlier_messages import message, message_text
from moa_cli.chat.outcomes import Edit, EditMessage, Leave, Outcome
from moa_cli.core.conversation import Conversation
from moa_cli.core.sanitize import one_line


@command("exit", aliases=("quit", "q", "ex"))
def _exit(host: Host, argument: str) -> Outcome:
    """Leave."""
    return Leave()


@command("clear", section=Section.CONVERSATION)
def _clear(host: Host, argument: str) -> None:
    """Forget the conversation, and clear the screen."""
    host.clear_screen()
    _new(host, argument)


@command("new", section=Section.CONVERSATION)
def _new(host: Host, argument: str) -> None:
    """Forget the conversation, and begin a new one."""
    host.session.go_on(Conversation())
    host.kept.begin_anew()
    host.say("a new conversation")


def _messages(host: Host, argument: str) -> list[Suggestion]:
    asked = [one_line(message_text(turn), 60) for turn in host.session.asked()]
    return [Suggestion(str(number), text) for number, text in enumerate(asked, 1)][::-1]


@command("edit", "[N | TEXT]", _messages, section=Section.ASK)
def _edit(host: Host, argument: str) -> Outcome:
    """Write the next prompt in $VISUAL or $EDITOR, or edit your message N in a copy."""
    if argument.isascii() and argument.isdigit():
        message(host.session, int(argument))
        return EditMessage(int(argument))
    return Edit(argument)


@command("multiline", "[on | off]", ("on", "off"))
def _multiline(host: Host, argument: str) -> None:
    """Swap Enter and Alt-Enter: one sends, the other begins a new line."""
    host.options.multiline = switched("multiline", host.options.multiline, argument)
    keys = ("Alt-Enter", "Enter") if host.options.multiline else ("Enter", "Alt-Enter")
    host.say(f"{keys[0]} sends, {keys[1]} begins a new line")


@command("plain", "[on | off]", ("on", "off"))
def _plain(host: Host, argument: str) -> None:
    """Show replies as raw text, or as drawn Markdown again."""
    host.options.plain = switched("plain", host.options.plain, argument)
    host.say("replies are shown as " + ("raw text" if host.options.plain else "Markdown"))
