"""`moa batch --on ray`: the rows of a batch are answered by the workers of a Ray cluster.

The driver, which is this process, hands rows to workers one by one and writes down what comes back,
just as it would if it had answered them itself. So what a worker, a node or the driver had in
flight is all that is asked again when it is lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.row_answerer import AnsweredRow, RowAnswerer
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.estimate import RunEstimator
from moa_cli.bench.run.journal import CallJournal
from moa_cli.bench.run.plan import Work
from moa_cli.cli import wiring
from moa_cli.cli.bench.session import Job
from moa_cli.core.conversation import Failure
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BenchError, BudgetReached, UsageError
from moa_cli.core.installation import install_command
from moa_cli.core.ledger import CallBegun
from moa_cli.core.text import plural
from moa_cli.engine import Budget
from moa_cli.engine.budget import Reservation
from moa_cli.store.spending import CallRecorder, Spending
from moa_cli.terminal.progress import Progress, ProgressView
from moa_cli.terminal.tty import cancel_on_termination

# How often a row is handed to another worker after its own was lost.
_MOST_LOST = 20
# Seconds in which a worker that was lost is given no row: it is begun again meanwhile.
_REST = 3.0
# Seconds after which the driver looks for new results and lost workers.
_LOOK = 0.5


def address_of(where: str) -> str | None:
    """The address in `ray` or `ray://HOST:PORT`; None is that of RAY_ADDRESS, or a cluster of this
    machine. Raises UsageError, also where Ray is not installed."""
    if where != "ray" and not where.startswith("ray://"):
        raise UsageError(f"--on: `{where}` is no cluster", hint="write ray, or ray://HOST:PORT")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UsageError(
            "--on ray: the package ray is missing",
            hint=f"install it with: {install_command('ray')}",
        ) from None
    return None if where == "ray" else where


class RowsOnRay:
    """How the work is done on a cluster; see `WorkOff`.

    arm: what answers. address: see `address_of`. workers: how many processes; None is one on each
    node.
    """

    def __init__(self, arm: Arm, address: str | None, workers: int | None) -> None:
        self._arm = arm
        self._address = address
        self._workers = workers

    async def __call__(
        self,
        job: Job,
        todo: Iterable[Work],
        concurrency: int,
        facts: Mapping[str, ModelInfo],
        budgets: tuple[Budget, ...],
        spending: Spending | None,
        progress: Progress,
        view: ProgressView,
    ) -> Failure | None:
        import ray

        cancel_on_termination()
        try:
            # A cluster of this machine is for this batch alone: it tells nobody that it is there.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address=self._address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BenchError(f"--on ray: the cluster cannot be reached: {error}") from None
        nodes = [node for node in ray.nodes() if node["Alive"]]
        count = self._workers or len(nodes)
        view.say(f"{plural(count, 'worker')} on {plural(len(nodes), 'node')} of a Ray cluster")
        run = _RayRun(job, self._arm, concurrency, facts, budgets, spending, progress, view, count)
        view.start()
        try:
            await run.work_off(todo)
        finally:
            view.close()
            run.close()
            ray.shutdown()
        return run.capped


class _RayRun:
    """Rows on their way to workers and back.

    capped: why no more rows are handed out, if a cap was reached.
    """

    def __init__(
        self,
        job: Job,
        arm: Arm,
        concurrency: int,
        facts: Mapping[str, ModelInfo],
        budgets: tuple[Budget, ...],
        spending: Spending | None,
        progress: Progress,
        view: ProgressView,
        count: int,
    ) -> None:
        import ray

        self.capped: Failure | None = None
        self._job, self._facts, self._budgets = job, facts, budgets
        self._progress, self._view = progress, view
        self._ledger = CallRecorder(spending, view.say) if spending is not None else None
        config = wiring.config()
        self._room = max(1, concurrency // count)
        arguments = {
            "config": config,
            "partial_answers": job.partial,
            "concurrency": concurrency,
            "per_provider": job.options.provider_concurrency,
            "processes": count,
            "facts": dict(facts),
        }
        # A worker waits for models, and needs next to no processor. It is begun again wherever
        # there is a node, as often as it is lost. All its rows are in flight at once.
        kind = ray.remote(
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=self._room + 1,
            scheduling_strategy="SPREAD",
        )(_Worker)
        self._workers = [kind.remote(arm, arguments) for _ in range(count)]
        # What each worker has in flight, and each row by the reference of its answer.
        self._busy = [0] * count
        # Until when each worker is given nothing.
        self._resting = [0.0] * count
        self._flying: dict[Any, tuple[int, Work, list[Reservation]]] = {}
        self._lost: dict[tuple[str, str], int] = {}
        progress.in_flight = lambda: len(self._flying)

    async def work_off(self, todo: Iterable[Work]) -> None:
        """Hand out all rows, and write down what comes back. Raises OSError, BenchError."""
        import ray

        rest = iter(todo)
        # Rows that were lost, or that a cap had no room for; all others are not read yet.
        again: deque[Work] = deque()
        while True:
            while self._free():
                work = again.popleft() if again else next(rest, None)
                if work is None:
                    break
                held = self._reserve(work)
                if held is None:
                    again.appendleft(work)
                    break
                self._hand_out(work, held)
            if not self._flying and again and self.capped is None:
                # All workers were lost, and are begun again.
                await asyncio.sleep(_LOOK)
                continue
            if not self._flying:
                # All has ended, or nothing will give anything back.
                return
            self.capped = None
            ready, _ = await asyncio.to_thread(
                ray.wait,
                list(self._flying),
                num_returns=1,
                timeout=_LOOK,
            )
            if ready:
                # All that has come by now, so that many are written down at once.
                ready, _ = ray.wait(list(self._flying), num_returns=len(self._flying), timeout=0)
            for reference in ready:
                worker, work, held = self._flying.pop(reference)
                self._busy[worker] -= 1
                for reservation in held:
                    reservation.release()
                if not self._take(reference, work):
                    self._resting[worker] = time.monotonic() + _REST
                    again.append(work)

    def _free(self) -> list[int]:
        """The workers that have room for a row."""
        now = time.monotonic()
        return [
            number
            for number, busy in enumerate(self._busy)
            if busy < self._room and self._resting[number] <= now
        ]

    def _hand_out(self, work: Work, held: list[Reservation]) -> None:
        worker = min(self._free(), key=lambda number: self._busy[number])
        journal = self._job.folder.journal
        assert isinstance(journal, IndexedJournal)
        # Of a row that had ended, but whose line still waited for those before it at a kill.
        known = [call for call in journal.calls_of(work.item.id) if call.error is None]
        reference = self._workers[worker].answer.remote(work.item, work.order, known)
        self._busy[worker] += 1
        self._flying[reference] = (worker, work, held)

    def _reserve(self, work: Work) -> list[Reservation] | None:
        """Keep free what a row may cost; None where a cap leaves no room now."""
        if not self._budgets:
            return []
        names = wiring.providers()
        estimator = RunEstimator(
            CallJournal(None), self._facts, {}, lambda name: names.parse(name)[1]
        )
        estimator.add(work.arm, work.item)
        held: list[Reservation] = []
        try:
            for budget in self._budgets:
                held.append(budget.reserve(budget.cap.amount(estimator.total.high)))
        except BudgetReached as reached:
            for reservation in held:
                reservation.release()
            self.capped = Failure(type(reached).__name__, reached.message, reached.hint)
            return None
        return held

    def _take(self, reference: Any, work: Work) -> bool:
        """Write down what came of a row; False if its worker was lost.

        Raises BenchError if it was lost again and again.
        """
        import ray

        try:
            answered: AnsweredRow = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            times = self._lost[work.name] = self._lost.get(work.name, 0) + 1
            if times > _MOST_LOST:
                raise BenchError(
                    f"the workers of {plural(times, 'attempt')} at {work.item.id} were lost:"
                    f" {type(error).__name__}"
                ) from None
            return False
        journal = self._job.folder.journal
        for record in answered.calls:
            journal.add(record)
            self._progress.spent += record.usage
            if self._ledger is not None:
                calls = self._ledger.begin_turn()
                price = self._facts[record.model].price
                usage = record.usage
                begun = CallBegun(record.model, usage.prompt_tokens, usage.completion_tokens, price)
                calls.end([calls.begin(begun)], record.model, usage)
        result = answered.result
        self._job.results.add(result)
        if result.error is None:
            self._progress.done += 1
        else:
            self._progress.failed += 1
            self._view.say(f"{self._job.called(result)}: {result.error.message}")
        self._view.changed()
        return True

    def close(self) -> None:
        """End the workers, and what they have in flight."""
        import ray

        for worker in self._workers:
            ray.kill(worker)


class _Worker:
    """An actor of Ray: a process that answers rows."""

    def __init__(self, arm: Any, arguments: dict[str, Any]) -> None:
        self._answerer = RowAnswerer(arm, **arguments)

    async def answer(self, item: Any, order: int, known: Any) -> AnsweredRow:
        """What comes of a row."""
        return await self._answerer.answer(item, order, known)
