"""The table of `moa`'s commands: where each one is, and the first sentence of its help."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from moa_cli.cli.commands import Debug, deferred
from moa_cli.version import __version__

app = deferred(
    "moa_cli.cli",
    {
        "ask": ("ask:ask", "Ask once, and print the reply."),
        "chat": ("chat:chat", "Hold a conversation in the terminal."),
        "serve": (
            "serve:serve",
            "Serve mixtures to any program that uses OpenAI's or Anthropic's API.",
        ),
        "mcp": ("serve:mcp", "Offer mixtures to agents as tools, by the Model Context Protocol."),
        "batch": (
            "batch.command:batch",
            "Answer many prompts; the same command resumes where it stopped.",
        ),
        "batch merge": (
            "batch.merge:merge",
            "Merge the outputs of a batch's shards into one file.",
        ),
        "compare": (
            "compare.choose:compare",
            "Choose between answers without seeing which model wrote them.",
        ),
        "compare list": (
            "compare.choices:list_",
            "List your choices in `moa compare`, the latest first.",
        ),
        "compare show": (
            "compare.choices:show",
            "Print a choice: its prompt and answers (if kept), which arms gave them, and your"
            " note.",
        ),
        "compare export": (
            "compare.choices:export",
            "Write the choices as lines of JSON, with prompts and answers where they were kept.",
        ),
        "compare delete": (
            "compare.choices:delete",
            "Delete choices permanently, or only their prompts and answers and the verdicts of"
            " judges.",
        ),
        "compare judge": (
            "compare.judge:judge",
            "Let a model choose between the same answers, and measure how far it agrees with you.",
        ),
        "setup": (
            "setup:setup",
            "Find keys and model servers, try a mixture of their models, and make it the default.",
        ),
        "models": ("models:group", "List what a provider offers."),
        "doctor": (
            "doctor:doctor",
            "Check the installation: versions, folders, keys, providers and models.",
        ),
        "bench": ("bench:group", "Evaluate mixtures: answer a dataset's items by several arms."),
        "profile": ("profile:group", "List, show, make, change and check profiles."),
        "config": ("config:group", "List, get, set and unset settings, and edit their file."),
        "history": ("history:group", "List, show, search and delete past conversations."),
    },
    name="moa",
    help="Mixture-of-Agents in the terminal: several models answer, one writes the reply.",
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moa {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    pass
