"""Answers rows in any process, such as a worker of a cluster or a notebook.

Each row is answered by the same engine and with the same limits as a line of `moa batch`.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from moa_cli.batch.lines import OURS
from moa_cli.batch.prompts import Batch, Todo
from moa_cli.batch.sources import Source
from moa_cli.batch.state import MemoryState
from moa_cli.batch.worker_setup import Share, WorkerSetup, check_processes
from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.journal import CallJournal, CallRecord, Result
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.replay import RunContext
from moa_cli.bench.run.runner import answer_item
from moa_cli.clients.default_mixture import choose_profile
from moa_cli.clients.limiter import Limiter
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import load_config
from moa_cli.core.errors import UsageError
from moa_cli.core.files.descriptors import room_for
from moa_cli.core.text import dumps
from moa_cli.engine import Limits
from moa_cli.models.providers import Providers
from moa_cli.profile import Overrides, Profile

_T = TypeVar("_T")

# Seconds for which a call that is refused for its rate is tried again. It is long, because no user
# waits in front of a batch.
_LONGEST_WAIT = 600.0
# Seconds to wait at most for the facts on a model, such as its price and context length.
_PATIENCE = 15.0


@dataclass(frozen=True)
class AnsweredRow:
    """The result of a row, and the calls that were made for it.

    bound_by: the provider whose limit calls of this process waited for when the row ended, and
    which limit; "" if no call waited.
    """

    result: Result
    calls: tuple[CallRecord, ...]
    bound_by: str = ""


class RowAnswerer:
    """Answers many rows at once, in one event loop.

    arm: the mixture that answers. setup: the settings, and the limits of all processes together.
    share: which of the processes this is.
    """

    def __init__(self, arm: Arm, setup: WorkerSetup, share: Share) -> None:
        self._arm = arm
        self._config = share.divided(setup.config)
        self._environment = setup.environment
        self._partial = setup.partial_answers
        self._facts = setup.facts
        providers = Providers(setup.config, setup.environment)
        count = len({providers.provider_of(model) for model in arm.profile.models()})
        # Connections to each provider stay open, so there are up to `room` for every provider.
        self.room = max(1, share.part(setup.concurrency))
        self.room = max(1, min(self.room, room_for(self.room * count) // count))
        each = setup.per_provider and max(1, share.part(setup.per_provider))
        self._limiter = Limiter(self.room, per_provider=each)
        self._limits = Limits(
            concurrency=self.room,
            retries=setup.config.retries,
            longest_wait=_LONGEST_WAIT,
            trims_history=False,
        )
        self._pool: ClientPool | None = None

    async def answer(self, item: Item, order: int, known: Sequence[CallRecord] = ()) -> AnsweredRow:
        """Answer an item. If it fails, it is tried once more.

        known: calls of the item that were answered before; they are not made again.
        Raises ProfileError if a model name has no provider.
        """
        if self._pool is None:
            self._pool = ClientPool(self._config, self._environment, many_calls=True)
        pool = self._pool
        if not self._facts:
            models = dict.fromkeys(self._arm.profile.models())
            self._facts = {model: await pool.facts(model, patience=_PATIENCE) for model in models}
        made: list[CallRecord] = []
        slots = partial(self._limiter.slots, pool.providers.provider_of)
        # Each item has its own journal, so that its calls leave memory when it ends.
        journal = CallJournal(None)
        for record in known:
            journal.add(record)
        shared = RunContext(pool, journal, slots, self._facts, {}, made.append)
        work = Work(self._arm, item, order)
        result = await answer_item(work, shared, self._limits, partial=self._partial)
        if result.error is not None:
            result = await answer_item(work, shared, self._limits, partial=self._partial)
        return AnsweredRow(result, tuple(made), self._limiter.bound_by)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


def answer_rows(
    batch: Any,
    *,
    profile: str | Profile | None = None,
    prompt: str = "prompt",
    strict: bool = False,
    proposals: bool = False,
    concurrency: int | None = None,
    processes: int = 1,
) -> dict[str, list[Any]]:
    """Answer the rows of a table with a mixture, as `map_batches` of Ray Data calls it.

    Keys and settings are those of the process that it runs in. Nothing is stored.

    Args:
        batch: The rows: columns by name (lists or arrays, as Ray Data has them), a pandas frame, an
            Arrow table, or a list of mappings. A row has a `messages` or a prompt, and perhaps an
            `id`.
        profile: The name or path of a profile, or the profile itself. None is the default one.
        prompt: The column that holds the prompts.
        strict: Whether an answer that lost a proposer has failed.
        proposals: Whether there is a column of all proposals.
        concurrency: Most calls in flight at once in all processes together; by default that of the
            settings.
        processes: How many processes share the limits of calls. Give the number of workers. Each
            of them has an equal part, rounded down.

    Returns:
        The columns of the rows, and those of a line of `moa batch` (`reply`, `model`, `cost`, …),
        in the order of the rows. A column of tables (`usage`, `error`, `lost`, …) holds JSON texts.

    Raises:
        UsageError: A row has no prompt, the settings have a budget, or there are more processes
            than calls may be in flight.
        MoAError: A profile, a setting or a key is wrong.
    """
    config = load_config()
    if config.budget.day is not None or config.budget.session is not None:
        raise UsageError(
            "answer_rows keeps no budget, but the settings have one",
            hint="use `moa batch`, which does, or take `budget` out of these settings",
        )
    if not isinstance(profile, Profile):
        profile = _apart(choose_profile, config, profile, Overrides())
    concurrency = concurrency or config.concurrency
    known = Providers(config, os.environ)
    used = {known.provider_of(model).name for model in profile.models()}
    check_processes(config, used, concurrency, processes)
    rows = _rows_of(batch, prompt)
    if not rows:
        return {}
    data = "".join(json.dumps(row, default=_as_json) + "\n" for row in rows).encode()
    source = Source("rows", lambda: io.BytesIO(data))
    made = Batch(profile, source, "jsonl", strict=strict, proposals=proposals)
    setup = WorkerSetup(config, os.environ, {}, not strict, concurrency, None)
    # No process knows its number, so each takes the smallest part, which is that of the last.
    work = _answer_all(made, setup, Share(processes - 1, processes))
    found = _apart(asyncio.run, work)
    return _columns([json.loads(line) for line in found], rows)


def _apart(function: Callable[..., _T], *arguments: object) -> _T:
    """Call it in another thread, because a notebook already runs an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()


async def _answer_all(batch: Batch, setup: WorkerSetup, share: Share) -> list[str]:
    answerer = RowAnswerer(batch.arm, setup, share)
    # As many rows at once as calls are allowed; further rows would only wait.
    room = asyncio.Semaphore(answerer.room)
    state = MemoryState(batch)

    async def line(work: Work) -> str:
        async with room:
            answered = await answerer.answer(work.item, work.order)
        for record in answered.calls:
            state.calls.add(record)
        return batch.writer.line(work, answered.result, state.calls)

    try:
        rows = state.intake.digest.lines
        todo = Todo(batch, state.index, rows)
        state.index.load_done(rows, 1)
        return await asyncio.gather(*map(line, todo))
    finally:
        state.close()
        await answerer.aclose()


def _rows_of(batch: Any, prompt: str) -> list[dict[str, Any]]:
    if hasattr(batch, "to_pylist"):
        rows = batch.to_pylist()
    elif hasattr(batch, "to_dict") and hasattr(batch, "columns"):
        rows = batch.to_dict(orient="records")
    elif isinstance(batch, Mapping):
        columns = {name: _plain(column) for name, column in batch.items()}
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
    else:
        rows = [dict(row) for row in batch]
    found = []
    for number, row in enumerate(rows, 1):
        values = {name: _plain(value) for name, value in row.items()}
        if prompt not in values and "messages" not in values:
            raise UsageError(
                f"row {number} has no column `{prompt}`",
                hint="name the column of the prompts: prompt=…",
            )
        if _is_missing(values.get("messages")):
            if _is_missing(values.get(prompt)):
                raise UsageError(
                    f"row {number} has nothing in its column `{prompt}`", hint="leave such rows out"
                )
            values["prompt"] = str(values[prompt])
        elif "prompt" in values and _is_missing(values["prompt"]):
            values["prompt"] = None
        found.append(values)
    return found


def _is_missing(value: Any) -> bool:
    """Whether a table has no value there: None, NaN, or what pandas has for them."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and math.isnan(value)


def _plain(value: Any) -> Any:
    """A NumPy value or array as plain Python values; times and other values unchanged."""
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return list(value) if value.ndim else value
    return value.tolist() if hasattr(value, "tolist") else value


def _as_json(value: Any) -> Any:
    """What stands for a value that JSON cannot hold: plain values for a NumPy value or array inside
    a field, a text for anything else."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _columns(
    lines: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """The columns of lines. The fields of a row that are no lists or mappings, such as times, keep
    the values that the caller gave."""
    names = dict.fromkeys(name for line in lines for name in line)
    return {name: [_cell(name, *both) for both in zip(lines, rows, strict=True)] for name in names}


def _cell(name: str, line: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
    value = line.get(name)
    if isinstance(value, dict | list):
        return dumps(value)
    kept = name != "id" and name in row and name not in OURS
    return row[name] if kept and not isinstance(row[name], dict | list) else value
