"""Every block of code in the README and the documentation is true: commands run against a scripted
endpoint, programs run, settings and profiles are accepted. What cannot run is marked in the page
with a reason; its commands are parsed at least, and their number is held here."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer.main

from moa_cli.cli.table import app
from moa_cli.config.schema import to_config
from moa_cli.config.toml import parse_toml
from moa_cli.core.values import JSON, read_fields
from moa_cli.profile import build
from moa_cli.server.wires.chat_request import ChatBody
from tests.support.pages import (
    PAGES,
    ROOT,
    Block,
    blocks,
    commands_in,
    machine,
    moa_calls,
    run_shell,
)
from tests.support.upstream import Reply, Request, Upstream

LANGUAGES = {"sh", "console", "python", "toml", "json", "text"}
EVERY = [block for page in PAGES for block in blocks(page)]
# Blocks that do not run, by page.
NOT_RUN = {
    "CONTRIBUTING.md": 2,
    "docs/contributing.md": 2,
    "docs/how-to/add-a-command.md": 1,
    "docs/how-to/clients.md": 1,
    "docs/how-to/evaluate.md": 4,
    "docs/how-to/mcp.md": 2,
}
PARSED_ONLY = {
    "README.md": 2,
    "docs/tutorial.md": 2,
    "docs/how-to/ask.md": 1,
    "docs/how-to/backup.md": 1,
    "docs/how-to/batch.md": 2,
    "docs/how-to/benchmark.md": 4,
    "docs/how-to/budgets.md": 1,
    "docs/how-to/chat.md": 1,
    "docs/how-to/compare.md": 4,
    "docs/how-to/history.md": 3,
    "docs/how-to/import.md": 2,
    "docs/how-to/install.md": 2,
    "docs/how-to/judge.md": 4,
    "docs/how-to/keys.md": 4,
    "docs/how-to/mcp.md": 3,
    "docs/how-to/privacy.md": 1,
    "docs/how-to/profiles.md": 1,
    "docs/how-to/report.md": 3,
    "docs/how-to/operate.md": 2,
    "docs/how-to/serve.md": 4,
    "docs/how-to/settings.md": 1,
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def told(block: Block, done: Any) -> str:
    return f"{block}: exit code {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}"


def test_each_block_says_what_language_it_is() -> None:
    assert [str(block) for block in EVERY if block.language not in LANGUAGES] == []


def test_blocks_that_do_not_run_are_counted() -> None:
    for mark, counted in (("not run", NOT_RUN), ("parsed only", PARSED_ONLY)):
        assert Counter(name(block.page) for block in EVERY if block.mark == mark) == counted, mark


def answer(request: Request) -> str:
    """What all models of the examples say."""
    return '{"name": "Graz"}' if "response_format" in request.body else "A short answer: 4"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not block.mark for block in blocks(page))], ids=name
)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, upstream: Upstream) -> None:
    upstream.always("*", Reply(text=answer))
    offered = [{"id": "org/llama-3.3-70b"}, {"id": "org/qwen3-32b"}]
    upstream.models_reply = Reply(error={"object": "list", "data": offered})
    moa = machine(tmp_path / "home", upstream.url)
    for block in blocks(page):
        if block.mark:
            continue
        if block.language in ("sh", "console"):
            done = run_shell(moa, "bash", "-euo", "pipefail", "-c", commands_in(block))
        elif block.language == "python":
            done = run_shell(moa, sys.executable, "-c", block.text)
        else:
            continue
        assert done.returncode == 0, told(block, done)


@pytest.mark.parametrize(
    "block", [block for block in EVERY if block.mark == "parsed only"], ids=str
)
def test_commands_that_do_not_run_have_the_options_that_they_name(block: Block) -> None:
    for call in moa_calls(commands_in(block)):
        command: Any = typer.main.get_command(app)
        context = typer.Context(command, info_name="moa")
        path = []
        while hasattr(command, "commands"):
            if " ".join(call[:2]) in command.commands:
                # Such as `compare list`, where `compare` alone is a command, too.
                call[:2] = [" ".join(call[:2])]
            assert call[0] in command.commands, f"{block}: there is no command {call}"
            path.append(call.pop(0))
            command = command.commands[path[-1]]
        command.make_context(" ".join(path), call, parent=context)


@pytest.mark.parametrize("block", [b for b in EVERY if b.language == "toml"], ids=str)
def test_a_toml_example_is_a_profile_or_settings(block: Block) -> None:
    table = parse_toml(block.text, str(block))
    if "aggregator" in table:
        build("example", table, {})
    else:
        to_config(table, str(block))


@pytest.mark.parametrize("block", [b for b in EVERY if b.language == "json"], ids=str)
def test_a_json_example_is_json_and_a_request_is_one_that_the_server_takes(block: Block) -> None:
    values = json.loads(block.text)
    if "messages" in values:
        read_fields(ChatBody, values, JSON)
