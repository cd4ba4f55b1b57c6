"""What is asked of a provider's batch interface: files of requests, and jobs that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from moa_cli.core.endpoints import Delta, Request

# Where a job stands: it runs, has ended with the answers that there are, or was refused as a whole.
JobState = Literal["running", "ended", "refused"]


@dataclass(frozen=True)
class RemoteJob:
    """A job as its provider tells of it.

    status: `state` in the provider's word. input_file: the file of requests that it answers.
    outputs: the files that hold answers, and the errors of single requests. name: the one that
    `moa` gave it, "" where the provider keeps none. problem: why it was refused or stopped, in the
    provider's words; "" if it was not. retryable: whether the same job may go well later.
    """

    id: str
    state: JobState
    status: str = ""
    input_file: str = ""
    outputs: tuple[str, ...] = ()
    name: str = ""
    problem: str = ""
    retryable: bool = False


class JobClient(Protocol):
    """The batch interface of one provider. All but `body` raise ClientError."""

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request as it stands in a file of requests."""

    async def answer(self, line: Mapping[str, Any], request: Request) -> Delta:
        """The completion in a parsed line of an output file."""

    async def upload(self, file: Path) -> str:
        """Send a file of requests; returns its id there."""

    async def create(self, file: str, name: str) -> RemoteJob:
        """Begin a job for an uploaded file, under a name of our own."""

    async def find(self, file: str, name: str) -> RemoteJob | None:
        """The job that answers that file or has that name, if there is one."""

    async def look(self, job: str) -> RemoteJob:
        """How the job of that id stands."""

    async def download(self, file: str, into: Path) -> None:
        """Write a file of the provider to that path."""
