"""Entries of the lists of models that providers give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def tables_in(
    row: Mapping[str, Any], names: Sequence[str], deeper: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """The entry, and the tables in it that may tell more.

    names: of tables in the entry. deeper: of tables in those.
    """
    yield row
    for name in names:
        table = row.get(name)
        if isinstance(table, Mapping):
            yield table
            yield from (inner for key in deeper if isinstance(inner := table.get(key), Mapping))
