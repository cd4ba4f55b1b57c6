"""Batch interfaces of providers in OpenAI's shape: `/files` and `/batches`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.clients.transport import Refused
from moa_cli.core.endpoints import Delta, Request
from moa_cli.core.errors import BadResponse, ServerFailed
from moa_cli.core.remote_jobs import JobState, RemoteJob

ENDPOINT = "/v1/chat/completions"
# The key of the job's name in the metadata that the provider stores.
_NAME = "moa_job"
_SECONDS = 60.0
# Seconds that a transfer of a file may take.
_TRANSFER_SECONDS = 1800.0
_PAGE = 100
# A job that expired or was cancelled has ended, too: its finished answers are billed and can be
# fetched.
_STATES: Mapping[str, JobState] = {
    "failed": "refused",
    **dict.fromkeys(("completed", "expired", "cancelled", "canceled"), "ended"),
    **dict.fromkeys(("validating", "in_progress", "finalizing"), "running"),
    **dict.fromkeys(("cancelling", "canceling"), "running"),
}
# The error code for too many tokens in all jobs together. The provider accepts more when other jobs
# have ended.
_LATER = "token_limit_exceeded"


class OpenAIJobs:
    """The batch interface of one endpoint; see `JobClient`.

    names_jobs: whether the provider stores a name for a job.
    """

    def __init__(self, client: OpenAICompatible, *, names_jobs: bool = True) -> None:
        self._client = client
        self._names_jobs = names_jobs

    def body(self, request: Request) -> dict[str, Any]:
        return self._client.batch_body(request)

    async def answer(self, line: Mapping[str, Any], request: Request) -> Delta:
        response, error = line.get("response"), line.get("error")
        if isinstance(response, dict):
            status = response.get("status_code")
            body = response.get("body")
            if isinstance(status, int) and status >= 400:
                raise await self._client.mapped(Refused(status, body, {}), request)
            if isinstance(body, dict):
                return await self._client.read_batched(body, request)
        if error:
            code = error.get("code") if isinstance(error, dict) else None
            if code == "batch_expired":
                raise ServerFailed("the job ended before this request was answered")
            raise await self._client.mapped(Refused(400, {"error": error}, {}), request)
        raise BadResponse("a line of the job's output holds no answer")

    async def upload(self, file: Path) -> str:
        return _id_of(await self._client.send_batch_file(file))

    async def create(self, file: str, name: str) -> RemoteJob:
        body = {
            "input_file_id": file,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            **({"metadata": {_NAME: name}} if self._names_jobs else {}),
        }
        told = await self._client.post_json("/batches", body, _SECONDS)
        return job_of(told)

    async def find(self, file: str, name: str) -> RemoteJob | None:
        after = ""
        while True:
            path = f"/batches?limit={_PAGE}{after and f'&after={quote(after)}'}"
            told = await self._client.get_json(path, _SECONDS)
            listed = told.get("data") if isinstance(told, dict) else told
            if not isinstance(listed, list):
                raise BadResponse("the list of jobs is not a list")
            jobs = [job_of(entry) for entry in listed]
            for job in jobs:
                if job.name == name or job.input_file == file:
                    return job
            if not jobs or not (isinstance(told, dict) and told.get("has_more")):
                return None
            after = jobs[-1].id

    async def look(self, job: str) -> RemoteJob:
        return job_of(await self._client.get_json(f"/batches/{quote(job, safe='')}", _SECONDS))

    async def download(self, file: str, into: Path) -> None:
        path = f"/files/{quote(file, safe='')}/content"
        await self._client.fetch_file(path, into, _TRANSFER_SECONDS)


def job_of(told: object) -> RemoteJob:
    """A job, from the JSON of OpenAI or Together. Raises BadResponse."""
    if isinstance(told, dict) and isinstance(told.get("job"), dict):
        told = told["job"]
    if not isinstance(told, dict):
        raise BadResponse("the description of the job cannot be read")
    status = str(told.get("status") or "").lower()
    files = (told.get("output_file_id"), told.get("error_file_id"))
    metadata = told.get("metadata")
    problem, code = _problem(told)
    return RemoteJob(
        id=_id_of(told),
        state=_STATES.get(status, "unknown"),
        status=status,
        input_file=str(told.get("input_file_id") or ""),
        outputs=tuple(str(file) for file in files if file),
        name=str(metadata.get(_NAME) or "") if isinstance(metadata, dict) else "",
        problem=problem,
        retryable=code == _LATER,
    )


def _problem(told: Mapping[str, Any]) -> tuple[str, str]:
    """Why a job was refused, and the provider's code for that."""
    error = told.get("error")
    if isinstance(error, str) and error:
        return error, ""
    errors = told.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else errors
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        first = listed[0]
        line = f"line {first['line']}: " if first.get("line") else ""
        return f"{line}{first.get('message') or json.dumps(first)}", str(first.get("code") or "")
    return "", ""


def _id_of(told: object) -> str:
    found = told.get("id") if isinstance(told, dict) else None
    if not isinstance(found, str) or not found:
        raise BadResponse("the endpoint sent no id")
    return found
