"""`moa batch --on ray`: the rows of a batch are answered by the workers of a Ray cluster.

This process is the driver. It gives rows to workers one by one and stores their results as if it
had answered the rows itself. So if a worker, a node or the driver is lost, only the calls that it
had in flight are made again. Caps are checked only in the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import secrets
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.row_answerer import AnsweredRow, RowAnswerer
from moa_cli.batch.worker_setup import Share, WorkerSetup, most_workers, travelling_settings
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.estimate import RunEstimator
from moa_cli.bench.run.journal import CallRecord, Result
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.runner import Capped, Runner
from moa_cli.cli import wiring
from moa_cli.cli.bench.session import JobSession, say_stopped
from moa_cli.core.conversation import Failure
from moa_cli.core.debug_log import on_terminal
from moa_cli.core.errors import BenchError, BudgetReached, MoAError, UsageError
from moa_cli.core.installation import install_command
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.engine.budget import Reservation
from moa_cli.terminal.tty import cancel_on_termination

# How often a row is handed out again after its worker was lost.
_MOST_LOST = 20
# A lost worker gets no row for this many seconds, in which Ray starts it again.
_REST = 3.0
# A cluster must accept a connection within this many seconds.
_PATIENCE = 10.0
# How often a `ray://` address is tried. The head starts a process for each connection. If it is
# busy, gRPC crashes now and then in that fork, and the next attempt succeeds.
_ATTEMPTS = 3
# Ray's word for a cluster that it starts itself.
_OWN = "local"
# The port of a `ray://` address without one, as in Ray's documentation.
_CLIENT_PORT = 10001


def address_of(where: str) -> str | None:
    """The address in `ray` or `ray://HOST:PORT`. For `ray` it is that of RAY_ADDRESS; None for a
    cluster that runs on this machine, `local` if one has to be started for this batch. Raises
    UsageError if it is no address, or Ray is not installed."""
    if where != "ray" and not where.startswith("ray://"):
        raise UsageError(f"--on: `{where}` is no cluster", hint="write ray, or ray://HOST:PORT")
    address = (os.environ.get("RAY_ADDRESS") or None) if where == "ray" else where
    if address is None and not _runs_here():
        address = _OWN
    # Ray reads all of these variables when it is imported, or later.
    # A cluster of this machine is only for this batch: it does not announce itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Below `uv run`, Ray would copy the working directory, with its `.env` file, to the disks of
    # the nodes, and start each worker there by `uv run`.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address == _OWN:
        # Whoever reaches the processes of a cluster can run programs as its user, and read keys.
        # So they listen on loopback only, as Ray does by itself on other systems than Linux, and
        # demand a token. Ray would write its own token to a file that all users may read.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UsageError(
            "--on ray: the package ray is missing",
            hint=f"install it with: {install_command('ray')}",
        ) from None
    return address


def _runs_here() -> bool:
    """Whether this machine has a cluster of this user, or of root, that Ray would find.

    Ray finds it by a file in a folder to which all users may write: another user's cluster there
    would get this user's keys.
    """
    temporary = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()  # noqa: S108
    file = Path(os.environ.get("RAY_TMPDIR", temporary), "ray", "ray_current_cluster")
    try:
        owner = file.stat().st_uid
    except OSError:
        return False
    return owner == 0 or sys.platform == "win32" or owner == os.getuid()


async def work_off(
    arm: Arm, address: str | None, workers: int | None, session: JobSession, todo: Iterable[Work]
) -> Failure | None:
    """Answer all rows on a cluster. Returns why that ended early, if a cap was reached.

    arm: the mixture that answers. address: see `address_of`. workers: how many processes; None is
    one on each node.
    """
    job, view = session.job, session.view
    with _connected(address):
        # Ray has set its own signal handlers by now.
        cancel_on_termination()
        nodes = _nodes()
        providers, models = wiring.providers(), job.models
        used = {providers.provider_of(model).name for model in models}
        concurrency, each = session.concurrency, job.options.provider_concurrency
        most, limit = most_workers(wiring.config(), used, concurrency, each)
        count = workers or len(nodes)
        if count > most:
            view.say(f"{plural(most, 'worker')}, not {count:,}: they share {limit}")
            count = most
        view.say(f"{plural(count, 'worker')} on {plural(len(nodes), 'node')} of a Ray cluster")
        config, environment = travelling_settings(wiring.config(), models, os.environ)
        setup = WorkerSetup(config, environment, session.facts, job.partial, concurrency, each)
        crew = _Crew(arm, setup, nodes, count)
        runner = _RayRun(session, crew).runner
        view.start()
        try:
            await runner.run((), todo)
        finally:
            view.close()
            crew.dismiss()
    say_stopped(job, runner.stopped)
    return runner.capped


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster. Raises BenchError if it cannot be reached."""
    if address is not None:
        _check_listens(address)
    level = logging.WARNING if on_terminal() else logging.CRITICAL
    if not on_terminal():
        # For Ray's native code, which would write to standard error at any time.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    try:
        # This machine's own cluster needs no dashboard.
        own = {"include_dashboard": False} if address in (None, _OWN) else {}
        job = {} if "://" in (address or "") else {"job_config": _job()}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _without_noise():
                    ray.init(
                        address=address, log_to_driver=False, logging_level=level, **own, **job
                    )
                break
            except ConnectionAbortedError:
                if attempt == _ATTEMPTS:
                    raise
    except Exception as error:
        # Ray raises this class itself if its processes take long to start.
        raise _unreachable(address, str(error)) from None
    # A connection by `ray://` ignores the level that it was given.
    logging.getLogger("ray").setLevel(level)
    # Ray prints the loss of workers and nodes to standard output, where answers may go; some of it
    # when the connection ends.
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(sys.stderr if on_terminal() else nowhere),
    ):
        try:
            yield
        finally:
            with _without_noise():
                ray.shutdown()


def _job() -> Any:
    """The settings of a job whose workers import nothing from the user's working directory."""
    from ray.job_config import JobConfig

    class Job(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            # Otherwise Ray puts the working directory first where its workers look for modules.
            return True

    return Job()


def _check_listens(address: str) -> None:
    """Raise BenchError if nothing listens at the address. Ray itself would try for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if "@" in place.netloc:
        # The message leaves out the address, so that logs do not hold the password.
        raise UsageError("--on ray: the address of a cluster holds no user or password")
    if address in ("auto", _OWN):
        return
    try:
        port = place.port or (_CLIENT_PORT if place.scheme else None)
        if not place.hostname or port is None:
            raise ValueError("it is not HOST:PORT")
        socket.create_connection((place.hostname, port), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str | None, why: str) -> BenchError:
    named = address if address != _OWN else None
    at = f" at {named}" if named else ""
    return BenchError(
        f"--on ray: the cluster{at} cannot be reached: {one_line(' '.join(why.split()))[:300]}",
        hint="`ray status` on its head tells whether it runs" if named else None,
    )


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Within this context, nothing is written to standard error, not even by Ray's native code. If
    the debug log goes there, nothing is suppressed."""
    if on_terminal():
        yield
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _nodes() -> list[str]:
    """The ids of the nodes that take work. A head node without CPUs takes none."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    working = [node for node in alive if node["Resources"].get("CPU")]
    return [node["NodeID"] for node in working or alive]


class _Crew:
    """The workers: processes on a cluster, spread over its nodes.

    room: how many rows each of them answers at once.
    """

    def __init__(self, arm: Arm, setup: WorkerSetup, nodes: Sequence[str], count: int) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.room = [Share(number, count).part(setup.concurrency) for number in range(count)]
        # This holds keys. Ray may spill an object of its store to disk or lose it with a node, and
        # it records the arguments with which it starts a worker. So this goes along with each row,
        # which costs little because it is pickled once.
        self._given = pickle.dumps((arm, setup))
        # A worker waits for models, and needs almost no processor. It is started again on any node,
        # as often as it is lost. All its rows are in flight at once. Ray places what needs nothing
        # at all on a random node (ray-project/ray#25360), hence the one byte.
        self._workers = [
            ray.remote(_Worker)
            .options(
                num_cpus=0,
                memory=1,
                max_restarts=-1,
                max_concurrency=room + 1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(
                    nodes[number % len(nodes)], soft=True
                ),
            )
            .remote(Share(number, count))
            for number, room in enumerate(self.room)
        ]

    async def answer(self, worker: int, work: Work, known: Sequence[Any]) -> AnsweredRow | None:
        """The answered row; None if the worker was lost. Raises BenchError."""
        from ray import exceptions

        reference = self._workers[worker].answer.remote(self._given, work.item, work.order, known)
        try:
            answered: AnsweredRow = await reference
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, MoAError):
                raise error.cause from None
            told = one_line(str(error.cause).partition("\n")[0])
            kind = type(error.cause).__name__
            raise BenchError(f"--on ray: a worker failed: {kind}: {told}") from None
        except exceptions.RayActorError as error:
            if error.actor_init_failed:
                told = one_line(str(error).strip().rpartition("\n")[2])
                raise BenchError(
                    f"--on ray: a worker cannot begin: {told}",
                    hint="install the same versions of Python and moa on all nodes",
                ) from None
            return None
        except exceptions.RayError:
            return None
        except ConnectionError as error:
            raise _unreachable(None, str(error)) from None
        return answered

    def dismiss(self) -> None:
        """End the workers and the calls that they have in flight."""
        import ray

        for worker in self._workers:
            # If the cluster is gone, there is nothing to end.
            with contextlib.suppress(Exception):
                ray.kill(worker)


class _RayRun:
    """Gives rows to workers, and stores what comes back."""

    def __init__(self, session: JobSession, crew: _Crew) -> None:
        self._session, self._crew = session, crew
        room = crew.room
        # The first slot of each worker comes before all second slots, so that even a few rows are
        # spread over the workers.
        places = [
            worker for place in range(max(room)) for worker, size in enumerate(room) if place < size
        ]
        # Slots of workers that have no row now. The row that has waited longest gets the next one,
        # so that a row whose worker was lost is not overtaken: the lines of all later rows wait for
        # its line.
        self._free = deque(places)
        self._turn = asyncio.Semaphore(len(places))
        self.runner = Runner(
            session.job.results,
            self._answer,
            len(places),
            session.keep,
            session.job.options.stop_after,
            # Workers try failed rows again themselves.
            tries_again=False,
        )
        self._flying = 0
        self._bound_by = ""
        session.progress.in_flight = lambda: self._flying
        session.progress.bound_by = lambda: self._bound_by

    async def _answer(self, work: Work) -> Result:
        """The result of a row. If its worker is lost, another one answers it. Raises OSError,
        Capped, and BenchError if too many workers are lost."""
        journal = self._session.job.folder.journal
        assert isinstance(journal, IndexedJournal)
        for _ in range(_MOST_LOST + 1):
            held = self._reserve(work)
            # Calls of a row that had ended, but whose line still waited for earlier ones when `moa`
            # was killed.
            known = [call for call in journal.calls_of(work.item.id) if call.error is None]
            try:
                answered = await self._hand_out(work, known)
            finally:
                for reservation in held:
                    reservation.release()
            if answered is not None:
                return self._written_down(answered)
        raise BenchError(
            f"--on ray: the workers of {_MOST_LOST + 1} attempts at {work.item.id} were lost",
            hint="see Ray's logs; perhaps no node is left, or has too little memory",
        )

    async def _hand_out(self, work: Work, known: Sequence[CallRecord]) -> AnsweredRow | None:
        """Have a worker answer a row. Returns None if the worker was lost."""
        await self._turn.acquire()
        worker = self._free.popleft()
        self._flying += 1
        try:
            answered = await self._crew.answer(worker, work, known)
        finally:
            self._flying -= 1
        if answered is None:
            asyncio.get_running_loop().call_later(_REST, self._give_back, worker)
        else:
            self._give_back(worker)
        return answered

    def _give_back(self, worker: int) -> None:
        self._free.append(worker)
        self._turn.release()

    def _reserve(self, work: Work) -> list[Reservation]:
        """Reserve what a row may cost. Raises Capped if a cap leaves no room now."""
        budgets = self._session.budgets
        if not budgets:
            return []
        estimator = RunEstimator(self._session.facts, wiring.providers().model_id)
        estimator.add(work.arm, work.item)
        held: list[Reservation] = []
        try:
            for budget in budgets:
                held.append(budget.reserve(budget.cap.amount(estimator.total.high)))
        except BudgetReached as reached:
            for reservation in held:
                reservation.release()
            failure = Failure(type(reached).__name__, reached.message, reached.hint)
            raise Capped(failure) from None
        return held

    def _written_down(self, answered: AnsweredRow) -> Result:
        """Write the calls of a row to the journal. Returns its result."""
        self._bound_by = answered.bound_by
        for record in answered.calls:
            self._session.job.folder.journal.add(record)
            self._session.paid(record)
            self.runner.ended(record)
        return answered.result


class _Worker:
    """A Ray actor: a process that answers rows. share: which of the workers it is."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._answerer: RowAnswerer | None = None

    async def answer(self, given: bytes, item: Any, order: int, known: Any) -> AnsweredRow:
        """Answer a row. given: the pickled arm and setup, which are the same for all rows."""
        if self._answerer is None:
            arm, setup = pickle.loads(given)  # noqa: S301 - from our own driver
            self._answerer = RowAnswerer(arm, setup.here(), self._share)
        return await self._answerer.answer(item, order, known)
