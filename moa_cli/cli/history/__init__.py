"""`moa history`: the conversations that were kept."""

from __future__ import annotations

from moa_cli.cli.commands import deferred

group = deferred(
    {
        "list": (
            "moa_cli.cli.history.conversations:list_",
            "List conversations, the latest first.",
        ),
        "show": (
            "moa_cli.cli.history.conversations:show",
            "Print a conversation, at a terminal through $PAGER if it is long.",
        ),
        "search": (
            "moa_cli.cli.history.conversations:search",
            "Find turns and titles that hold all the words, or other forms or parts of them.",
        ),
        "delete": (
            "moa_cli.cli.history.delete:delete",
            "Delete conversations for good, with their prompts in the prompt history.",
        ),
        "path": (
            "moa_cli.cli.history.conversations:path_",
            "Print the file that conversations are kept in.",
        ),
        "stats": (
            "moa_cli.cli.history.stats:stats",
            "Print turns, tokens and cost by month and model, of deleted conversations too.",
        ),
        "export": (
            "moa_cli.cli.history.archive:export",
            "Write conversations as Markdown, as a web page, or as JSON to import again.",
        ),
        "import": (
            "moa_cli.cli.history.archive:import_",
            "Take in conversations: from `export`'s JSON, ChatGPT, Claude, llm's logs.db or"
            " aichat.",
        ),
        "check": (
            "moa_cli.cli.history.upkeep:check",
            "Read the whole history, and tell whether it is sound.",
        ),
        "backup": (
            "moa_cli.cli.history.upkeep:backup",
            "Copy the history and what was spent into one file; other processes may write"
            " meanwhile.",
        ),
        "recover": (
            "moa_cli.cli.history.upkeep:recover",
            "Bring back what can be read of a damaged history, or of a copy.",
        ),
        "clean": (
            "moa_cli.cli.history.upkeep:clean",
            "Finish wiping what was deleted from the file; this also goes on by itself.",
        ),
        "rename": ("moa_cli.cli.history.tags:rename", "Give a conversation another title."),
        "tag": (
            "moa_cli.cli.history.tags:tag",
            "Tag a conversation, to find it by `list --tag`; print its tags.",
        ),
    },
    help="List, show, search and delete past conversations.",
)
