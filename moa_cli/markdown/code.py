"""The code in a reply, as it is copied."""

from __future__ import annotations

from moa_cli.markdown.syntax import parser


def code_blocks(text: str) -> list[str]:
    """The blocks of code in the order in which they are drawn, those in lists and quotes among
    them, without the indentation that these give them."""
    return [
        token.content.rstrip("\n")
        for token in parser(inline=False).parse(text)
        if token.type in ("fence", "code_block")
    ]
