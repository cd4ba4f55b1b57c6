"""Inline Markdown as a terminal shows it: nothing hidden behind a link or an image."""

from markdown_it.token import Token


def spelled_out(tokens: list[Token], *, plain: bool) -> list[Token]:
    """Return the inline tokens with the targets of links and images as text after them."""
    made: list[Token] = []
    begun = 0
    target = ""
    for token in tokens:
        if token.type == "link_open":
            begun = len(made)
            target = "" if token.markup == "autolink" else str(token.attrs.get("href", ""))
            made.append(Token("link", "link", 1))
        elif token.type == "link_close":
            made.append(Token("link", "link", -1))
            shown = "".join(part.content for part in made[begun:])
            made += _target(target) if target not in ("", shown) else []
        elif token.type == "image":
            made.append(text_token(token.content or "image"))
            made += _target(str(token.attrs.get("src", "")))
        elif token.type == "code_inline" and plain:
            made.append(text_token(f"{token.markup}{token.content}{token.markup}"))
        else:
            made.append(token)
    return made


def text_token(content: str) -> Token:
    """Return the token of a text that holds no marks."""
    return Token("text", "", 0, content=content)


def _target(url: str) -> list[Token]:
    return [
        Token("link_url", "link_url", 1),
        text_token(f" ({url})"),
        Token("link_url", "link_url", -1),
    ]
