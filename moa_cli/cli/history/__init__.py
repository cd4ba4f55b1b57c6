"""`moa history`: the conversations that were kept."""

from __future__ import annotations

from moa_cli.cli.commands import deferred

group = deferred(
    __name__,
    {
        "list": ("conversations:list_", "List conversations, the latest first."),
        "show": (
            "conversations:show",
            "Print a conversation, at a terminal through $PAGER if it is long.",
        ),
        "search": (
            "conversations:search",
            "Find turns and titles that contain all the words, or other forms or parts of them.",
        ),
        "delete": (
            "delete:delete",
            "Delete conversations permanently, with their prompts in the prompt history.",
        ),
        "path": ("conversations:path_", "Print the file that conversations are kept in."),
        "stats": (
            "conversations:stats",
            "Print turns, tokens and cost by month and model, of deleted conversations too.",
        ),
        "export": (
            "archive:export",
            "Write conversations as Markdown, as a web page, or as JSON to import again.",
        ),
        "import": (
            "archive:import_",
            "Import conversations: from `export`'s JSON, ChatGPT, Claude, llm's logs.db or aichat.",
        ),
        "check": ("upkeep:check", "Read the whole history, and check it for damage."),
        "backup": (
            "upkeep:backup",
            "Copy the history and the spending record into one file, even while other"
            " processes write.",
        ),
        "recover": (
            "upkeep:recover",
            "Recover what can be read from a damaged history, or from a copy.",
        ),
        "clean": (
            "upkeep:clean",
            "Finish wiping deleted text from the file. This also happens in the background.",
        ),
        "rename": ("conversations:rename", "Give a conversation another title."),
        "tag": (
            "conversations:tag",
            "Tag a conversation, to find it by `list --tag`; print its tags.",
        ),
    },
    help="List, show, search and delete past conversations.",
)
