"""The blocks of code in the documentation, and a machine on which they can be run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from moa_cli.profile import load
from tests.support.attached import PNG, pdf
from tests.support.command import Moa
from tests.support.shell import forking_program

__all__ = ["PAGES", "ROOT", "Block", "blocks", "commands_in", "machine", "moa_calls", "run_shell"]

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|parsed only): (.+?) -->\s*\Z")
_NAMES = ("careful", "balanced", "lively")
_KEYS = ("TOGETHER", "OPENAI", "OPENROUTER", "GROQ")
# What the pages use of `jq`.
_JQ = """#!{python}
import json, sys
for line in sys.stdin.read().splitlines() if sys.argv[1] == "-r" else [sys.stdin.read()]:
    print(json.loads(line)[sys.argv[-1].removeprefix(".")])
"""


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: "" if it runs, else "not run" or "parsed only", with a reason."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip(" ")
        mark = _MARK.search(before)
        indent = match[1]
        lines = [line.removeprefix(indent) for line in match[3].splitlines()]
        found.append(
            Block(
                page=page,
                line=before.count("\n") + 1,
                language=match[2],
                text="\n".join(lines) + "\n",
                mark=mark[1] if mark else "",
                reason=mark[2] if mark else "",
            )
        )
    return found


def commands_in(block: Block) -> str:
    """The commands of a `sh` or `console` block; of the latter, what stands behind `$ `."""
    if block.language == "sh":
        return block.text
    typed = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    return "\n".join(typed) + "\n"


def moa_calls(text: str) -> Iterator[list[str]]:
    """The arguments of each `moa` that a shell would start."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        call: list[str] = []
        for token in [*lexer, ";"]:
            if not set(token) <= set("|&;<>()"):
                call.append(token)
                continue
            while call and re.fullmatch(r"\w+=.*", call[0]):
                del call[0]
            for runner in (["python3", "uv", "run"], ["uv", "run"]):
                if call[: len(runner)] == runner:
                    del call[: len(runner)]
            if call[:1] == ["moa"] and call[1:] != ["--version"]:
                yield call[1:]
            # What follows is a file's name.
            call = ["a file"] if set(token) & set("<>") else []


def machine(home: Path, url: str) -> Moa:
    """A user's machine whose providers are all at `url`, with the files that the pages speak of."""
    moa = Moa(home, url)
    shipped = [load(str(path)) for path in (ROOT / "profiles").glob("*.toml")]
    prices = {
        model: {"prompt": 0.1, "completion": 0.2}
        for mixture in shipped
        for model in mixture.models()
    }
    (moa.config / "config.toml").write_text(
        tomli_w.dumps({"retries": 0, "prices": prices}), "utf-8"
    )
    small = {"model": "ollama:small"}
    moa.profile("local", *[{**small, "name": name} for name in _NAMES], aggregator=small)
    moa.environment |= {f"{name}_API_KEY": "a-key" for name in _KEYS}
    moa.environment |= {f"{name}_BASE_URL": url for name in _KEYS}
    moa.environment["OLLAMA_HOST"] = url.removesuffix("/v1")
    programs = home / "bin"
    programs.mkdir()
    for name, text in {
        "moa": forking_program(),
        "jq": _JQ.format(python=sys.executable),
    }.items():
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    moa.environment["PATH"] = f"{programs}{os.pathsep}{moa.environment['PATH']}"
    files = {
        "notes.md": "Tea is hot.\n",
        "plan.md": "Serve the tea cold.\n",
        "questions.txt": "Why is the sky blue?\nWhy is the sea salty?\n",
        "prompts.jsonl": '{"prompt": "2 + 2?", "answer": "4"}\n{"prompt": "3 + 3?", "answer": "6"}',
    }
    for name, text in files.items():
        (moa.folder / name).write_text(text, "utf-8")
    (moa.folder / "old.txt").write_bytes("Müsli\n".encode("latin1"))
    (moa.folder / "photo.png").write_bytes(PNG)
    (moa.folder / "paper.pdf").write_bytes(pdf("Tea is cold."))
    subprocess.run(["git", "init", "--quiet", str(moa.folder)], check=True)
    return moa


def run_shell(moa: Moa, *command: str) -> subprocess.CompletedProcess[Any]:
    """Run a program on that machine, without a terminal."""
    return subprocess.run(
        command,
        cwd=moa.folder,
        env=moa.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
