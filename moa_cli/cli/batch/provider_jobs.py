"""`moa batch --provider-batch`: answers a batch through the batch APIs of its models' providers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moa_cli.batch.prompts import Todo
from moa_cli.batch.provider_batch.deferred import DeferredCalls
from moa_cli.batch.provider_batch.job_folder import JobFolder
from moa_cli.batch.provider_batch.runner import JobRunner
from moa_cli.bench.run.folder import StateFolder
from moa_cli.bench.run.plan import Work
from moa_cli.cli import wiring
from moa_cli.cli.bench.session import JobSession, say_stopped
from moa_cli.clients.batch_jobs import OpenAIJobs
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Failure
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import UsageError
from moa_cli.core.money import scaled
from moa_cli.core.remote_jobs import JobClient
from moa_cli.core.text import plural
from moa_cli.models.table import DEFAULT_PROVIDER
from moa_cli.terminal.tty import cancel_on_termination

_JOBS = "jobs"


def jobs_of(state: StateFolder[Any]) -> Path:
    """The folder of jobs in the state of a batch."""
    return state.path / _JOBS


def check_batchable(models: Iterable[str]) -> None:
    """Raise UsageError if the provider of one of these models has no batch interface."""
    for model in models:
        provider = wiring.providers().provider_of(model)
        if provider.batch_price is None or not provider.base_url:
            raise UsageError(
                f"--provider-batch: {model}: {provider.name} has no batch interface that moa knows",
                hint="leave out --provider-batch, or, if it has the /files and /batches of OpenAI,"
                f" set providers.{provider.name}.batch_price",
            )


def batch_prices(facts: dict[str, ModelInfo]) -> dict[str, ModelInfo]:
    """The facts with the prices of calls in jobs."""

    def of(model: str, info: ModelInfo) -> ModelInfo:
        share = wiring.providers().provider_of(model).batch_price
        if share is None or info.price is None:
            return info
        return replace(info, price=scaled(info.price, share))

    return {model: of(model, info) for model, info in facts.items()}


def forget_jobs(state: StateFolder[Any]) -> None:
    """Remove the state of the jobs, which is no longer needed. Raises OSError."""
    JobFolder(jobs_of(state)).forget()


async def work_off(session: JobSession, todo: Iterable[Work]) -> Failure | None:
    """Do all the work through jobs. Returns why it ended early, if a cap was reached."""
    job, progress, view = session.job, session.progress, session.view
    assert isinstance(job.folder, StateFolder)
    assert isinstance(todo, Todo)
    cancel_on_termination()
    # Files of Together's batches are sent through its SDK.
    pool = ClientPool(wiring.config(), many_calls=True, sdk_lists=True)
    limits = wiring.limits(session.concurrency, session.budgets)
    limits = replace(limits, trims_history=False)
    clients: dict[str, JobClient] = {}

    def job_client(model: str) -> JobClient:
        provider = pool.providers.provider_of(model)
        if provider.name not in clients:
            client = pool.client(provider)
            assert isinstance(client, OpenAICompatible)
            names_jobs = provider.name != DEFAULT_PROVIDER
            clients[provider.name] = OpenAIJobs(client, names_jobs=names_jobs)
        return clients[provider.name]

    calls = DeferredCalls(pool, job.folder.journal, session.facts, job_client)
    folder = JobFolder(jobs_of(job.folder))
    progress.in_flight = lambda: len(calls.in_jobs)

    runner = JobRunner(
        calls,
        folder,
        limits,
        view.say,
        session.keep,
        session.paid,
        job.partial,
        job.options.stop_after,
    )
    view.start()
    try:
        await runner.run(todo)
        say_stopped(job, runner.stopped, view.say, "answer")
    finally:
        running = sum(record.step != "written" for record in folder.open_jobs())
        if running:
            view.say(
                f"{plural(running, 'job')} of this batch may still run at the provider; the same"
                " command continues with them"
            )
        view.close()
        folder.close()
        await pool.aclose()
    return runner.capped
