"""The slash commands."""

# Imported for what they register.
import moa_cli.chat.commands.editing
import moa_cli.chat.commands.mixture
import moa_cli.chat.commands.turns  # noqa: F401
from moa_cli.chat.commands.registry import (
    COMMANDS,
    Command,
    Edit,
    Host,
    Leave,
    Outcome,
    Remerge,
    Resume,
    Send,
    complete,
    perform,
)

__all__ = [
    "COMMANDS",
    "Command",
    "Edit",
    "Host",
    "Leave",
    "Outcome",
    "Remerge",
    "Resume",
    "Send",
    "complete",
    "perform",
]
