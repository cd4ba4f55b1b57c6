"""`moa batch merge`: the outputs of a batch's shards as one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit

from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.output import say
from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.new_file import check_name
from moa_cli.core.text import plural


def merge(
    files: Annotated[
        list[str],
        Argument(
            metavar="PART... OUT",
            help="The outputs of all shards, in any order, then the new file.",
        ),
    ],
) -> None:
    """Merge the outputs of a batch's shards into one file.

    OUT's lines have the order of the input. The ending of its name decides its format, and
    OUT.card.json adds up the cards of the parts. No model is called. The exit code is 1 if an
    answer is missing.
    """
    from moa_cli.batch.card import card_path, merge_cards
    from moa_cli.batch.shards import merge_parts
    from moa_cli.batch.tables import ANSWERS, make_output, output_format

    *parts, target = [paths.expand(name) for name in files]
    if not parts:
        raise UsageError("there is nothing to merge", hint="name the parts, then OUT")
    check_name(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    form = output_format(target.name)
    if form.is_lines:
        merged = merge_parts(parts, target)
        without = merge_cards(merged.parts, target, target)
    elif target.exists():
        raise UsageError(f"{target}: already exists", hint="name a new file as the last argument")
    else:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".moa-merge-") as folder:
            lines = Path(folder) / ANSWERS
            merged = merge_parts(parts, lines)
            make_output(lines, target, form)
            without = merge_cards(merged.parts, target, lines)
    of = f" of {plural(merged.prompts, 'prompt')}" if merged.prompts is not None else ""
    say(f"{plural(merged.lines, 'line')}{of} in {target}")
    if merged.failed:
        say(f"{merged.failed:,} of them failed; the command of their shard tries them again")
    for shard in merged.absent:
        say(f"shard {shard} is missing")
    for shard in merged.unfinished:
        say(f"shard {shard} is not complete; its command resumes it")
    for path in merged.unknown:
        say(f"{path}: has no state, so moa cannot tell whether it belongs to the same batch")
    if len(without) < len(parts):
        for path in without:
            say(f"{path}: has no card, so {card_path(target)} lacks its calls")
    raise Exit(0 if merged.is_whole else FAILED)
