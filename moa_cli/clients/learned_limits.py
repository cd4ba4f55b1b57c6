"""What was learned of providers' limits, kept in the cache folder for the next process.

Without it, each `moa ask` would find out anew how many calls a provider takes at once.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from moa_cli.clients.window import Learned
from moa_cli.core import paths
from moa_cli.models.table import Provider

# Seconds for which a number of calls that were taken is believed, and one of which a call was
# refused: that may have had other reasons.
_TAKEN_KEPT, _CEILING_KEPT = 86_400.0, 3_600.0
_MOST = 10_000


def load_learned(provider: Provider) -> Learned | None:
    """What was learned of a provider not long ago, None if nothing was."""
    try:
        table = json.loads(_file(provider).read_bytes())
        taken, ceiling, as_of = table["taken"], table["ceiling"], float(table["as_of"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        # Not there, or not written by this program, or not to its end.
        return None
    age = time.time() - as_of
    if type(taken) is not int or not 0 <= taken <= _MOST or not 0 <= age <= _TAKEN_KEPT:
        return None
    if type(ceiling) is not int or not 2 <= ceiling <= _MOST or age > _CEILING_KEPT:
        ceiling = None
    return Learned(taken, ceiling)


def keep_learned(provider: Provider, learned: Learned) -> None:
    """Keep it; a folder that cannot be written is passed over."""
    file = _file(provider)
    table = {"as_of": time.time(), "taken": learned.taken, "ceiling": learned.ceiling}
    with suppress(OSError):
        paths.make_private(file.parent)
        with paths.replacing(file) as out:
            out.write(json.dumps(table).encode())


def _file(provider: Provider) -> Path:
    return paths.cache_dir() / "limits" / provider.file_name
