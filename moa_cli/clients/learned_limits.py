"""Stores the learned limits of providers in the cache folder, for the next process.

Without this file, each `moa ask` would have to find out again how many calls a provider takes at
once.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from moa_cli.clients.window import Learned
from moa_cli.core import paths
from moa_cli.models.table import Provider

# Seconds for which a stored number of taken calls is used, and a stored ceiling. The ceiling
# expires sooner, because the refusal may have had other reasons.
_TAKEN_KEPT, _CEILING_KEPT = 86_400.0, 3_600.0
_MOST = 10_000


def load_learned(provider: Provider) -> Learned | None:
    """What was learned of a provider, if it is recent enough; else None."""
    try:
        table = json.loads(_file(provider).read_bytes())
        taken, ceiling, as_of = table["taken"], table["ceiling"], float(table["as_of"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        # The file does not exist, is incomplete, or was not written by this program.
        return None
    age = time.time() - as_of
    if type(taken) is not int or not 0 <= taken <= _MOST or not 0 <= age <= _TAKEN_KEPT:
        return None
    if type(ceiling) is not int or not 2 <= ceiling <= _MOST or age > _CEILING_KEPT:
        ceiling = None
    return Learned(taken, ceiling)


def keep_learned(provider: Provider, learned: Learned) -> None:
    """Store what was learned of a provider; a folder that cannot be written is ignored."""
    file = _file(provider)
    table = {"as_of": time.time(), "taken": learned.taken, "ceiling": learned.ceiling}
    with suppress(OSError):
        paths.make_private(file.parent)
        with paths.replacing(file) as out:
            out.write(json.dumps(table).encode())


def _file(provider: Provider) -> Path:
    return paths.cache_dir() / "limits" / provider.file_name
