"""Replies to measure with, the same on every run; standard library only."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator

__all__ = ["CHARACTERS_PER_TOKEN", "chunks", "long_blocks", "mixed", "sample"]

CHARACTERS_PER_TOKEN = 4.8
# Their mean is CHARACTERS_PER_TOKEN.
_CHUNK_SIZES = (3, 5, 4, 7, 5)
_WORDS = tuple(
    re.findall(
        r"\w+",
        """
        the of and to in a is that for it as with on by this are from or an be at which not have
        model answer layer proposer aggregator token latency measure response table column value
        because however therefore usually sometimes network request memory cache result example
        compare consider remember understand explain improve quality different several important
        first second small large between without through against during before after each other
        """,
    )
)


def chunks(text: str) -> Iterator[str]:
    """`text` as it streams in: one token a chunk."""
    at = 0
    for size in itertools.cycle(_CHUNK_SIZES):
        if at >= len(text):
            return
        yield text[at : at + size]
        at += size


def _cut(text: str, tokens: int) -> str:
    return text[: int(tokens * CHARACTERS_PER_TOKEN)]


def mixed(tokens: int) -> str:
    """A reply of that many tokens with everything that models write."""
    writer = _Writer(random.Random(2406))
    parts: list[str] = []
    size = 0
    while size < tokens * CHARACTERS_PER_TOKEN:
        parts.append(writer.section())
        size += len(parts[-1])
    return _cut("".join(parts), tokens)


def sample() -> str:
    """One short piece of everything, to warm up with."""
    writer = _Writer(random.Random(1))
    return "".join(block() for block in writer.blocks) + "Some *em*, **strong** and `code`.\n"


def long_blocks() -> dict[str, str]:
    """Replies of one long block each, by what they are."""
    writer = _Writer(random.Random(4))
    rows = "".join(writer.row(4) for _ in range(300))
    code = "".join(writer.function() for _ in range(334))
    words = writer.words(30_000)
    paragraphs = "\n\n".join(writer.paragraph().strip() for _ in range(300))
    return {
        "a table of 300 rows": writer.row(4) + "|---|---|---|---|\n" + rows,
        "a code fence of 2,000 lines": f"```python\n{_lines(code, 2000)}```\n",
        "a list item of 10k tokens": "- " + _cut(paragraphs, 10_000).replace("\n", "\n  "),
        "a list item of one 10k-token paragraph": "- " + _cut(words, 10_000),
        "a block quote of 10k tokens": "> " + _cut(paragraphs, 10_000).replace("\n", "\n> "),
        "a block quote of one 10k-token paragraph": "> " + _cut(words, 10_000),
        "a paragraph of 20k tokens on one line": _cut(words, 20_000),
    }


def _lines(text: str, count: int) -> str:
    return "".join(text.splitlines(keepends=True)[:count])


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.blocks: tuple[Callable[[], str], ...] = (
            self.paragraph,
            self.items,
            self.paragraph,
            self.nested,
            self.python,
            self.paragraph,
            self.numbered,
            self.table,
            self.quote,
            self.json,
        )

    def words(self, count: int) -> str:
        """Words with now and then a mark, a comma or a full stop."""
        made = []
        for place in range(count):
            word = self._rng.choice(_WORDS)
            match self._rng.randrange(40):
                case 0:
                    word = f"**{word}**"
                case 1:
                    word = f"`{word}_{place % 10}`"
                case 2:
                    word = f"*{word}*"
                case 3 | 4:
                    word += ","
                case 5 | 6:
                    word += "."
            made.append(word)
        return " ".join(made)

    def section(self) -> str:
        """A heading and one of every kind of block, in some order."""
        blocks = self._rng.sample(self.blocks, len(self.blocks))
        return f"## {self.words(4)}\n\n" + "".join(block() for block in blocks)

    def paragraph(self) -> str:
        return self.words(self._rng.randint(20, 90)) + ".\n\n"

    def items(self) -> str:
        lines = [f"- **{self.words(1)}**: {self.words(self._rng.randint(6, 25))}" for _ in "12345"]
        return "\n".join(lines) + "\n\n"

    def nested(self) -> str:
        lines = []
        for _ in range(3):
            lines.append(f"- {self.words(6)}")
            lines += [f"  - {self.words(12)}" for _ in range(3)]
        return "\n".join(lines) + "\n\n"

    def numbered(self) -> str:
        lines = [f"{number}. {self.words(18)}" for number in range(1, 8)]
        return "\n\n".join(lines) + "\n\n"

    def row(self, columns: int) -> str:
        cells = (self.words(self._rng.randint(1, 4)) for _ in range(columns))
        return "| " + " | ".join(cells) + " |\n"

    def table(self) -> str:
        rows = "".join(self.row(4) for _ in range(8))
        return self.row(4) + "|---|---|---:|---|\n" + rows + "\n"

    def quote(self) -> str:
        lines = [f"> {self.words(14)}" for _ in range(3)]
        return "\n".join(lines) + "\n\n"

    def function(self) -> str:
        name, argument, other = (self._rng.choice(_WORDS) for _ in range(3))
        return (
            f"def {name}_{argument}({argument}: int, *, limit: float = 0.5) -> list[str]:\n"
            f'    """{self.words(6)}."""\n'
            f"    # {self.words(5)}\n"
            f"    if {argument} > limit:\n"
            f'        return [f"{other} {{{argument}}}" for _ in range({argument})]\n'
            f"    return []\n\n"
        )

    def python(self) -> str:
        return "```python\n" + "".join(self.function() for _ in range(3)) + "```\n\n"

    def json(self) -> str:
        rows = ",\n".join(
            f'  "{word}": {{"{self._rng.choice(_WORDS)}": {place}, "text": "{self.words(5)}"}}'
            for place, word in enumerate(self._rng.choices(_WORDS, k=8))
        )
        return f"```json\n{{\n{rows}\n}}\n```\n\n"
