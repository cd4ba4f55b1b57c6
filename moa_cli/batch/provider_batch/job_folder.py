"""The jobs of a batch on disk: how far each job has come, and its requests and answers.

    OUT.state/jobs/jobs.jsonl       a `JobRecord` for each step of a job; the last one counts
    OUT.state/jobs/NAME.calls.jsonl a `BatchedCall` for each request of a job; a user who deletes it
                                    gives the job up
    OUT.state/jobs/NAME.jsonl       these requests in the provider's format, until they are sent
    OUT.state/jobs/NAME.N.answers   the provider's answers, in files with the number N

Each step is written before the next one is taken. So if a process is killed, a later one finds the
job that it created at the provider, by the uploaded file, and never creates it a second time.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moa_cli.bench.data.json_lines import Lines, read_records, to_line
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.core.errors import BenchError
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price
from moa_cli.core.text import dumps
from moa_cli.core.unique import unique_name
from moa_cli.core.values import load_value

# written: the requests are on disk. uploaded: the provider has the file of requests, and the job is
# about to be created. submitted: the provider has confirmed that it is created. ended: the answers
# are in the journal.
JobStep = Literal["written", "uploaded", "submitted", "ended"]


@dataclass(frozen=True)
class BatchedCall:
    """A request of a job.

    key: the key of the call in the journal. item, turn, model: see `CallRecord`. prompt_tokens:
    about how many tokens are sent. most_tokens: how many the answer may have. limited: whether the
    request itself limits its answer. model_id: the model's id at its endpoint. body: the request's
    body as it is sent.
    """

    key: str
    item: str
    turn: int
    model: str
    prompt_tokens: int
    most_tokens: int
    limited: bool
    model_id: str
    body: dict[str, Any]

    def begun(self, price: Price | None) -> CallBegun:
        """The call in the form that ledgers and budgets use."""
        return CallBegun(self.model, self.prompt_tokens, self.most_tokens, price)

    def line(self, job: str) -> bytes:
        """The request as a line of the file for the provider. job: the name of the job. With it,
        the files of two jobs differ even if they ask the same."""
        values = {
            "custom_id": f"{job}/{self.key}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": self.body,
        }
        return dumps(values).encode() + b"\n"

    def request(self) -> Request:
        """A request with the values that the reader of the answer needs."""
        # The text stands for the messages: the reader rejects token counts that do not fit its
        # length.
        text = json.dumps(self.body.get("messages", []))
        most = self.most_tokens if self.limited else None
        extra = {k: v for k, v in self.body.items() if k in ("tools", "response_format")}
        messages = (Message("user", text),)
        return Request(model=self.model_id, messages=messages, max_tokens=most, extra=extra)


@dataclass(frozen=True)
class JobRecord:
    """How far a job has come.

    name: a unique name that we make. model: its name in the profile; all requests of a job go to
    the same model. calls: how many requests there are. file, job: the ids at the provider, "" until
    they are known.
    """

    name: str
    model: str
    calls: int
    step: JobStep
    file: str = ""
    job: str = ""


@dataclass
class JobFolder:
    """The jobs in that folder. No other process may have it open."""

    path: Path
    records: dict[str, JobRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = Lines(self.path / "jobs.jsonl")
        found = read_records(self._lines.path, JobRecord)
        self.records = {
            record.name: record
            for record in found
            if record.step == "ended" or self.calls_file(record.name).exists()
        }
        # Remove the files of jobs that a killed process was collecting or removing.
        names = {record.name for record in self.open_jobs()}
        for path in self.path.glob("*.calls.jsonl"):
            if path.name.removesuffix(".calls.jsonl") not in names:
                path.unlink(missing_ok=True)

    def open_jobs(self) -> list[JobRecord]:
        """The jobs whose answers are not in the journal yet."""
        return [record for record in self.records.values() if record.step != "ended"]

    def draft(self, model: str) -> JobDraft:
        """A new job for that model, without requests yet. Raises OSError."""
        paths.make_private(self.path)
        return JobDraft(self, f"moa-{unique_name()}", model)

    def note(self, record: JobRecord) -> None:
        """Write that a job has taken a step. Raises OSError."""
        self._lines.add(to_line(record))
        self.records[record.name] = record

    def calls(self, record: JobRecord) -> Iterator[BatchedCall]:
        """The requests of a job, one after another. Raises BenchError if the file is damaged."""
        path = self.calls_file(record.name)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield load_value(BatchedCall, json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise BenchError(f"{path}:{number}: is damaged: {error}") from None

    def answers(self, record: JobRecord, number: int) -> Path:
        """The path of the job's file of answers with that number."""
        return self.path / f"{record.name}.{number}.answers"

    def requests(self, record: JobRecord) -> Path:
        """Write the file of requests for the provider. Returns its path. Raises OSError."""
        path = self.path / f"{record.name}.jsonl"
        with paths.replacing(path) as file:
            for call in self.calls(record):
                file.write(call.line(record.name))
        return path

    def forget_files(self, record: JobRecord) -> None:
        """Remove the files of a job whose answers are in the journal. Raises OSError."""
        for path in self.path.glob(f"{record.name}.*"):
            path.unlink(missing_ok=True)

    def calls_file(self, name: str) -> Path:
        """The path of the requests of the job with that name."""
        return self.path / f"{name}.calls.jsonl"

    def close(self) -> None:
        self._lines.close()

    def forget(self) -> None:
        """Remove the folder, which is not needed any more. Raises OSError."""
        self.close()
        if self.path.exists():
            shutil.rmtree(self.path)


@dataclass
class JobDraft:
    """A job whose requests are still being collected. They are written to its file and not kept in
    memory. After a kill the file is removed, and the requests are collected again.

    count: how many requests there are. size: their bytes as they are sent.
    """

    folder: JobFolder
    name: str
    model: str
    count: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self._lines = Lines(self.folder.calls_file(self.name))

    def add(self, call: BatchedCall, length: int) -> None:
        """Write a request. length: the bytes of its line. Raises OSError."""
        self._lines.add(to_line(call))
        self.count, self.size = self.count + 1, self.size + length

    def finish(self) -> JobRecord:
        """Note the job with all its requests, so that later starts know it. Raises OSError."""
        self._lines.close()
        record = JobRecord(self.name, self.model, self.count, "written")
        self.folder.note(record)
        return record

    def drop(self) -> None:
        """Remove the draft. Raises OSError."""
        self._lines.close()
        self.folder.calls_file(self.name).unlink(missing_ok=True)


class CallsInJobs:
    """The keys of all calls in jobs, each with how often it was put into a job. They are kept on
    disk, because there may be millions."""

    def __init__(self) -> None:
        # SQLite keeps a database without a name in a private temporary file, and removes it at the
        # end.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA cache_size = -8000")
        self._database.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, tries) WITHOUT ROWID")
        self._database.execute("BEGIN")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self.tries(key) > 0

    def tries(self, key: str) -> int:
        """How often the call was put into a job; 0 if it is in none."""
        query = "SELECT tries FROM calls WHERE key = ?"
        row = self._database.execute(query, (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def add(self, key: str, *, counts: bool = True) -> None:
        """Note that a call is put into a job. It may have been in one before. counts: whether that
        is one more attempt at it."""
        tries = self.tries(key)
        self._count += not tries
        self._database.execute("REPLACE INTO calls VALUES (?, ?)", (key, tries + counts))

    def discard(self, key: str) -> None:
        """Forget a call that was answered or has failed."""
        self._count -= self._database.execute("DELETE FROM calls WHERE key = ?", (key,)).rowcount


@dataclass(frozen=True)
class JobAnswers:
    """The answers of a job in its files, which may be in any order. They are found by the key of
    the call.

    folder, record: the job's folder and record. places: for each key, the number of the file and
    the byte at which its line begins.
    """

    folder: JobFolder
    record: JobRecord
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, number: int) -> None:
        """Note where each answer is in the file with that number. Lines that are not JSON objects
        are skipped: their requests count as not answered."""
        start = 0
        with self.folder.answers(self.record, number).open("rb") as file:
            for line in file:
                found = _object(line)
                if found is not None:
                    key = str(found.get("custom_id")).rpartition("/")[2]
                    self.places[key] = number, start
                start += len(line)

    def find(self, key: str) -> dict[str, Any] | None:
        """The parsed line that answers a call; None if there is none."""
        if key not in self.places:
            return None
        number, start = self.places[key]
        with self.folder.answers(self.record, number).open("rb") as file:
            file.seek(start)
            return _object(file.readline())


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
