"""A folder of answered calls that several runs share, so that the same request is paid for once.

Each answer is a separate file, written in one step. So several runs can use the folder at the same
time.
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
    """The cached answers in a folder, for one run.

    The key of an answer is its whole request and the address of the model. It does not include the
    item's id, so datasets with equal items share answers. Equal items of one run still have
    separate answers, and so have samples and epochs: each epoch finds only the answers of the same
    epoch.

    address: gives a model's address by its name.
    """

    folder: Path
    address: Callable[[str], str]
    items: Iterable[Item]
    # For each item: its epoch, and its number among the items with equal content.
    _ranks: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        equal: Counter[str] = Counter()
        for item in self.items:
            if item.id not in self._ranks:
                asked = repr((item.epoch, item.turns, item.before, item.parts, item.speaker))
                self._ranks[item.id] = item.epoch, equal[asked]
                equal[asked] += 1

    def find(self, record: CallRecord, request: Request, sample: int) -> CallRecord | None:
        """The call with its cached answer, or None if there is none.

        record: the call without an answer. sample: its number among equal calls of its turn.
        """
        file = self._file(record, request, sample)
        try:
            found = load_value(CallRecord, json.loads(file.read_bytes()))
            check_usage(found.usage)
        except (OSError, ValueError, RecursionError):
            # An unreadable file counts as missing: the call is made, and the file written again.
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
        # The first epoch has the same keys as runs without epochs, so they share answers.
        asking = f"epoch {epoch}" if epoch > 1 else ""
        key = call_key(asking, rank, self.address(record.model), request, sample)
        return self.folder / key[:2] / f"{key}.json"
