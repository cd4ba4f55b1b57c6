"""Runs of `moa bench` over items of a test's own."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

__all__ = ["ANSWER", "answered_twice", "call_lines", "item_lines", "write_lines", "write_prompts"]


def _words(request: Request) -> str:
    """What a model says: nobody else says it, and it always says it to the same request."""
    mark = hashlib.sha256(json.dumps(request.messages).encode()).hexdigest()[:12]
    return f"{request.model} says {mark} and no more than that"


ANSWER = Reply(text=_words)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_prompts(moa: Moa, count: int) -> str:
    """A file of so many prompts in the user's folder; its name."""
    rows = [{"prompt": f"say in one line what you know of thing {n}"} for n in range(1, count + 1)]
    return write_lines(moa.folder / "mine.jsonl", rows).name


def call_lines(run: Path) -> list[dict[str, Any]]:
    """The calls in a run's folder, without a torn last line."""
    return _lines(run / "calls.jsonl")


def item_lines(run: Path) -> list[dict[str, Any]]:
    """The results in a run's folder."""
    return _lines(run / "items.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def answered_twice(upstream: Upstream, which: Callable[[Request], bool] = bool) -> list[str]:
    """The requests that were answered more than once."""
    bodies = Counter(
        json.dumps(request.body, sort_keys=True)
        for request in upstream.chats()
        if request.finished and which(request)
    )
    return [body for body, times in bodies.items() if times > 1]
