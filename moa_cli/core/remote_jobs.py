"""The batch interface of a provider: files of requests, and the jobs that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from moa_cli.core.endpoints import Delta, Request

# The state of a job. "ended" means that there are no more answers to come, even if some are
# missing; "refused" means that the provider refused the whole job; "unknown" means that the
# provider's word for it is not known, so that the job may run or not.
JobState = Literal["running", "ended", "refused", "unknown"]


@dataclass(frozen=True)
class RemoteJob:
    """A job as its provider describes it.

    status: the state in the provider's word. input_file: the id of the file of requests that the
    job answers. outputs: the ids of the files with answers, and with the errors of single requests.
    name: the name that `moa` gave the job; "" if the provider stores no name. problem: why the job
    was refused or stopped, in the provider's words; "" if it was not. retryable: whether the same
    job may succeed later.
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
        """The body of a request, in the form for a file of requests."""

    async def answer(self, line: Mapping[str, Any], request: Request) -> Delta:
        """The completion that a parsed line of an output file contains."""

    async def upload(self, file: Path) -> str:
        """Send a file of requests. Returns its id at the provider."""

    async def create(self, file: str, name: str) -> RemoteJob:
        """Begin a job for an uploaded file, with a name of our own."""

    async def find(self, file: str, name: str) -> RemoteJob | None:
        """The job that answers the file or has the name; None if there is none."""

    async def look(self, job: str) -> RemoteJob:
        """The current state of the job with that id."""

    async def download(self, file: str, into: Path) -> None:
        """Write a file of the provider to that path."""
