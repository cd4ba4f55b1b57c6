"""A folder of answered calls that several runs share: the same request is paid for once.

Each answer is a separate file, put in place in one step, so that runs may use the folder at the
same time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import to_line
from moa_cli.bench.run.journal import CallRecord, call_key
from moa_cli.core import paths
from moa_cli.core.conversation import check_usage
from moa_cli.core.endpoints import Request
from moa_cli.core.values import load_value


@dataclass
class CallCache:
    """The answers in a folder, as one run sees them.

    An answer is known by its whole request and the address that it is sent to. Ids of items do not
    count, so datasets share what they have in common. Equal items of a run still have separate
    answers, and so have samples and epochs: for the same request, each epoch finds the answer of
    that epoch.

    address: where a model is, by its name.
    """

    folder: Path
    address: Callable[[str], str]
    items: Iterable[Item]
    # By item: its epoch, and which of the items that are asked the same it is.
    _ranks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        equal: Counter[str] = Counter()
        for item in self.items:
            if item.id not in self._ranks:
                asked = repr((item.epoch, item.turns, item.before, item.parts, item.speaker))
                self._ranks[item.id] = item.epoch, equal[asked]
                equal[asked] += 1

    def find(self, record: CallRecord, request: Request, sample: int) -> CallRecord | None:
        """The call with the answer that is there, or None.

        record: the call, without an answer. sample: which of several equal calls of its turn.
        """
        file = self._file(record, request, sample)
        try:
            found = load_value(CallRecord, json.loads(file.read_bytes()))
            check_usage(found.usage)
        except (OSError, ValueError, RecursionError):
            # An unreadable answer is asked for and written again.
            return None
        return replace(
            found,
            key=record.key,
            item=record.item,
            turn=record.turn,
            model=record.model,
            from_cache=True,
        )

    def add(self, record: CallRecord, request: Request, sample: int) -> None:
        """Keep an answered call for other runs. Raises OSError."""
        file = self._file(record, request, sample)
        paths.make_private(file.parent)
        with paths.replacing(file) as out:
            out.write(to_line(record).encode() + b"\n")

    def _file(self, record: CallRecord, request: Request, sample: int) -> Path:
        epoch, rank = self._ranks.get(record.item, (1, 0))
        # The first epoch finds what runs without epochs have asked.
        asking = f"epoch {epoch}" if epoch > 1 else ""
        key = call_key(asking, rank, self.address(record.model), request, sample)
        return self.folder / key[:2] / f"{key}.json"
