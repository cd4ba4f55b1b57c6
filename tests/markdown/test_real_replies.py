"""Real replies of released models, streamed in random chunks, are drawn as when drawn whole."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from moa_cli.core.sanitize import Sanitizer, sanitize
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, render_markdown


def _replies() -> Iterator[str]:
    data = os.environ.get("MOA_TEST_DATA")
    if not data:
        return
    for path in sorted(Path(data, "alpaca_eval", "slice50", "model_outputs").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            yield row["output"]


REPLIES = list(_replies())
needs_data = pytest.mark.skipif(not REPLIES, reason="MOA_TEST_DATA names no evaluation data")


def _chunks(text: str, chance: random.Random) -> Iterator[str]:
    while text:
        size = chance.choice((1, 2, 3, 5, 9, 40))
        yield text[:size]
        text = text[size:]


@needs_data
@pytest.mark.parametrize("part", range(8))
def test_streamed_is_drawn_as_whole(part: int) -> None:
    chance = random.Random(part)
    for reply in REPLIES[part::8]:
        stream, renderer = MarkdownStream(), BlockRenderer(color="256")
        lines: list[str] = []
        for chunk in _chunks(reply, chance):
            lines += renderer.render(stream.feed(chunk), width=80)
        lines += renderer.render(stream.finish(), width=80)
        assert lines == render_markdown(reply, width=80, color="256"), reply


@needs_data
def test_sanitizing_in_chunks_gives_the_whole_text_and_loses_no_word() -> None:
    chance = random.Random(0)
    for reply in REPLIES:
        sanitizer = Sanitizer()
        text = "".join(map(sanitizer.feed, _chunks(reply, chance))) + sanitizer.flush()
        assert text == sanitize(reply)
        assert text.split() == reply.split()
