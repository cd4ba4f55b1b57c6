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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moa_cli.bench.data.json_lines import Lines, read_records, to_line
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price
from moa_cli.core.text import dumps

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

    def open_jobs(self) -> list[JobRecord]:
        """Those whose answers are still to come."""
        return [record for record in self.records.values() if record.step != "ended"]

    def write(self, record: JobRecord, calls: Sequence[BatchedCall]) -> None:
        """A new job, with its requests. Raises OSError."""
        paths.make_private(self.path)
        with paths.replacing(self._calls(record)) as file:
            for call in calls:
                file.write(to_line(call).encode() + b"\n")
        self.note(record)

    def note(self, record: JobRecord) -> None:
        """A step was taken. Raises OSError."""
        self._lines.add(to_line(record))
        self.records[record.name] = record

    def calls(self, record: JobRecord) -> list[BatchedCall]:
        """The requests of a job. Raises BenchError if the file is damaged."""
        return read_records(self._calls(record), BatchedCall)

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

    def _calls(self, record: JobRecord) -> Path:
        return self.path / f"{record.name}.calls.jsonl"

    def close(self) -> None:
        self._lines.close()

    def forget(self) -> None:
        """Nothing of it is needed any more. Raises OSError."""
        self.close()
        if self.path.exists():
            shutil.rmtree(self.path)


def answer_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a provider's file; lines that are none are passed over: their requests count
    as not answered."""
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found
