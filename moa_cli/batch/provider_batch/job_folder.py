"""The jobs of a batch on disk: what was handed to providers, and what was asked with it.

    OUT.state/jobs/jobs.jsonl       a `JobRecord` for each step of a job; the last one counts
    OUT.state/jobs/NAME.calls.jsonl a `BatchedCall` for each request of a job
    OUT.state/jobs/NAME.jsonl       these as they are sent, until they are
    OUT.state/jobs/NAME.N.answers   what the provider answered, the files of it by number

A step is written down before the next one is taken. So a job that was handed in by a process that
was killed is known by the file that it answers, and is never handed in a second time.
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

# written: its requests stand on disk. uploaded: the provider has them, and the job is about to be
# begun. submitted: the provider has said so. ended: its answers are in the journal.
JobStep = Literal["written", "uploaded", "submitted", "ended"]


@dataclass(frozen=True)
class BatchedCall:
    """A request of a job.

    key: of the call in the journal. item, turn, model: see
    `CallRecord`. prompt_tokens, most_tokens: about how many it is sent, and how many it may answer.
    limited: whether the request itself bounds its answer. model_id: at its endpoint. body: as it is
    sent.
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
        """The call as ledgers and budgets know it."""
        return CallBegun(self.model, self.prompt_tokens, self.most_tokens, price)

    def line(self, job: str) -> bytes:
        """The request as providers read it in a file. job: the name of the job, which makes the
        file of each job another one also where it asks the same again."""
        values = {
            "custom_id": f"{job}/{self.key}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": self.body,
        }
        return dumps(values).encode() + b"\n"

    def request(self) -> Request:
        """What of it a reader of the answer has to know."""
        # Four letters are about a token; the reader doubts counts that cannot be.
        text = json.dumps(self.body.get("messages", []))
        most = self.most_tokens if self.limited else None
        extra = {k: v for k, v in self.body.items() if k in ("tools", "response_format")}
        messages = (Message("user", text),)
        return Request(model=self.model_id, messages=messages, max_tokens=most, extra=extra)


@dataclass(frozen=True)
class JobRecord:
    """How far a job has come.

    name: our own, which no other job has. model: as the profile names it; all requests of a job
    ask the same one. calls: how many requests. file, job: the ids at the provider, "" before it
    has told them.
    """

    name: str
    model: str
    calls: int
    step: JobStep
    file: str = ""
    job: str = ""


@dataclass
class JobFolder:
    """The jobs in that folder, which nobody else has open."""

    path: Path
    records: dict[str, JobRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = Lines(self.path / "jobs.jsonl")
        found = read_records(self._lines.path, JobRecord)
        self.records = {record.name: record for record in found}
        # What a killed process had begun to collect, or to forget.
        names = {record.name for record in self.open_jobs()}
        for path in self.path.glob("*.calls.jsonl"):
            if path.name.removesuffix(".calls.jsonl") not in names:
                path.unlink(missing_ok=True)

    def open_jobs(self) -> list[JobRecord]:
        """Those whose answers are still to come."""
        return [record for record in self.records.values() if record.step != "ended"]

    def draft(self, model: str) -> JobDraft:
        """A new job of that model, without requests. Raises OSError."""
        paths.make_private(self.path)
        return JobDraft(self, f"moa-{unique_name()}", model)

    def note(self, record: JobRecord) -> None:
        """A step was taken. Raises OSError."""
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
        """Where the job's answers of that number are put."""
        return self.path / f"{record.name}.{number}.answers"

    def requests(self, record: JobRecord) -> Path:
        """The file of requests that is sent, made anew. Raises OSError."""
        path = self.path / f"{record.name}.jsonl"
        with paths.replacing(path) as file:
            for call in self.calls(record):
                file.write(call.line(record.name))
        return path

    def forget_files(self, record: JobRecord) -> None:
        """The answers are in the journal. Raises OSError."""
        for path in self.path.glob(f"{record.name}.*"):
            path.unlink(missing_ok=True)

    def calls_file(self, name: str) -> Path:
        """Where the requests of the job of that name stand."""
        return self.path / f"{name}.calls.jsonl"

    def close(self) -> None:
        self._lines.close()

    def forget(self) -> None:
        """Nothing of it is needed any more. Raises OSError."""
        self.close()
        if self.path.exists():
            shutil.rmtree(self.path)


@dataclass
class JobDraft:
    """A job whose requests are still being collected: they go to its file, and not to memory. What
    is left of it after a kill is asked for again, so that nobody has to know of it.

    count, size: of its requests, and bytes of these as they are sent.
    """

    folder: JobFolder
    name: str
    model: str
    count: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self._lines = Lines(self.folder.calls_file(self.name))

    def add(self, call: BatchedCall, length: int) -> None:
        """Write a request down. length: of its line. Raises OSError."""
        self._lines.add(to_line(call))
        self.count, self.size = self.count + 1, self.size + length

    def finish(self) -> JobRecord:
        """All its requests are there: from here on, the job is known. Raises OSError."""
        self._lines.close()
        record = JobRecord(self.name, self.model, self.count, "written")
        self.folder.note(record)
        return record

    def drop(self) -> None:
        """It is given up. Raises OSError."""
        self._lines.close()
        self.folder.calls_file(self.name).unlink(missing_ok=True)


class CallsInJobs:
    """The keys of all calls that stand in jobs, each with the times that it was put into one. They
    are on disk: there may be millions."""

    def __init__(self) -> None:
        # A database without a name is a file that nobody else sees, and goes with the process.
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

    def add(self, key: str) -> None:
        """A call is put into a job, perhaps once more."""
        tries = self.tries(key)
        self._count += not tries
        self._database.execute("REPLACE INTO calls VALUES (?, ?)", (key, tries + 1))

    def discard(self, key: str) -> None:
        """The call was answered, or has failed."""
        self._count -= self._database.execute("DELETE FROM calls WHERE key = ?", (key,)).rowcount


@dataclass(frozen=True)
class JobAnswers:
    """The answers of a job in its files, found by the key of the call, whatever their order.

    folder, record: of the job. places: of a key's line: the number of the file, and the byte.
    """

    folder: JobFolder
    record: JobRecord
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, number: int) -> None:
        """Look through the file of that number. Lines that are no objects are passed over: their
        requests count as not answered."""
        start = 0
        with self.folder.answers(self.record, number).open("rb") as file:
            for line in file:
                found = _object(line)
                if found is not None:
                    key = str(found.get("custom_id")).rpartition("/")[2]
                    self.places[key] = number, start
                start += len(line)

    def find(self, key: str) -> dict[str, Any] | None:
        """The line that answers a call; None if there is none."""
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
