"""`moa batch merge`: the outputs of a batch's shards as one file."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Exit

from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.output import say
from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.new_files import check_name
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
    """Put the outputs of a batch's shards together into one file.

    Lines are taken in turn, so that they stand in the order of the input. Nothing is asked of a
    model. The exit code is 1 if an answer is missing.
    """
    from moa_cli.batch.shards import merge_parts

    *parts, target = [paths.expand(name) for name in files]
    if not parts:
        raise UsageError("there is nothing to put together", hint="name the parts, then OUT")
    check_name(target)
    merged = merge_parts(parts, target)
    of = f" of {plural(merged.prompts, 'prompt')}" if merged.prompts is not None else ""
    say(f"{plural(merged.lines, 'line')}{of} in {target}")
    if merged.failed:
        say(f"{merged.failed:,} of them failed; the command of their shard tries them again")
    for shard in merged.absent:
        say(f"shard {shard} is missing")
    for shard in merged.unfinished:
        say(f"shard {shard} has not ended; its command goes on")
    for path in merged.unknown:
        say(f"{path}: has no state, so moa cannot tell whether it is of the same batch")
    raise Exit(0 if merged.is_whole else FAILED)
