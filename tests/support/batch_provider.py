"""A provider's batch interface in OpenAI's shape, on 127.0.0.1: files, jobs and their answers."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Phase = str  # "upload", "create", "look" or "download"


def says(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a model answers: always the same to the same messages, and unlike any other."""
    mark = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:12]
    text = f"{body['model']} says {mark} and no more than that"
    return {
        "id": "cmpl-1",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


class BatchProvider:
    """`with BatchProvider() as provider:` serves `provider.url`.

    answer: makes the body of an answer, or raises `Refusal`. held: whether jobs run on without an
    end. block: the phase at which the provider does its part and never says so, once; `blocked` is
    set then. page: jobs in a page of their list. gone: a path below /v1 that is answered by 404, or
    by 400 if something is sent to it. key: that is asked for. together: whether files and jobs are
    Together's: a file is sent to another address and is the same one if it is sent
    again, jobs keep no name, their list has no pages.
    """

    def __init__(self, key: str, *, together: bool = False) -> None:
        self.key = key
        self.together = together
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.queries: list[str] = []
        self.answer: Callable[[Mapping[str, Any]], dict[str, Any]] = says
        self.held = False
        self.block: Phase | None = None
        self.blocked = threading.Event()
        self.failing: Counter[Phase] = Counter()
        self.ends_as: dict[str, Any] = {"status": "completed"}
        self.page = 100
        self.gone = ""
        self._lock = threading.Lock()
        self._over = threading.Event()

    def requests(self) -> list[dict[str, Any]]:
        """The requests of all jobs that were begun, as often as they were handed in."""
        files = [self.files[job["input_file_id"]] for job in self.jobs.values()]
        return [json.loads(line) for file in files for line in file.splitlines()]

    def wait_until_blocked(self) -> None:
        assert self.blocked.wait(60)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _done(self, phase: Phase) -> bool:
        """Whether the answer to what was done in that phase is sent."""
        if self.block != phase:
            return True
        self.block = None
        self.blocked.set()
        self._over.wait(60)
        return False

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job as it stands now; one that may end is answered."""
        if job["status"] == "in_progress" and not self.held:
            self._end(job)
        return job

    def _end(self, job: dict[str, Any]) -> None:
        job.update(self.ends_as)
        if job["status"] == "failed":
            return
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for line in self.files[job["input_file_id"]].splitlines():
            request = json.loads(line)
            if job["status"] == "expired" and len(good) == 1:
                error = {"code": "batch_expired", "message": "not in time"}
                bad.append({"custom_id": request["custom_id"], "response": None, "error": error})
                continue
            try:
                body, status, lines = self.answer(request["body"]), 200, good
            except Refusal as refusal:
                body, status, lines = refusal.body, refusal.status, bad
            response = {"status_code": status, "request_id": "r", "body": body}
            lines.append({"custom_id": request["custom_id"], "response": response, "error": None})
        # In no order that anybody could rely on.
        for name, found in (("output_file_id", good[::-1]), ("error_file_id", bad)):
            if found:
                job[name] = self._keep("".join(json.dumps(line) + "\n" for line in found).encode())

    def _keep(self, data: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = data
        return name

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def send(self, status: int, body: object) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def refuses(self, phase: Phase) -> bool:
                """Whether a request is refused before anything is done."""
                if self.headers.get("Authorization") != f"Bearer {provider.key}":
                    self.send(401, {"error": {"message": "Incorrect API key provided."}})
                    return True
                if provider.failing[phase] > 0:
                    provider.failing[phase] -= 1
                    self.send(503, {"error": {"message": "out of order"}})
                    return True
                return False

            def do_GET(self) -> None:
                place = urlsplit(self.path)
                route = place.path.removeprefix("/v1")
                parts = route.strip("/").split("/")
                found: object = None
                phase: Phase = "look" if parts[0] == "batches" else "download"
                with provider._lock:
                    provider.asked.append(f"GET {route}")
                    provider.queries.append(place.query)
                    if route == "/batches":
                        self.listed(parse_qs(place.query))
                        return
                    if route == "/models":
                        found = {"data": []}
                    elif self.refuses(phase):
                        return
                    elif route == provider.gone:
                        self.send(404, {"error": {"message": "it is gone"}})
                        return
                    elif phase == "look":
                        found = provider._shown(provider._job(provider.jobs[parts[1]]))
                    elif len(parts) == 2:
                        found = {"id": parts[1], "object": "file", "filename": "f.jsonl"}
                    else:
                        found = provider.files[parts[1]]
                if provider._done(phase):
                    self.send(200, found)

            def redirected(self, form: bytes) -> None:
                """Where the file of that form is to be sent."""
                assert b"batch-api" in form
                [sum_] = re.findall(rb'name="checksum"\r\n\r\n(\w+)', form)
                name = f"file-{sum_.decode()[:16]}"
                if name in provider.files:
                    self.send(409, {"file_id": name, "error": {"message": "exists"}})
                    return
                self.send_response(302)
                self.send_header("Location", provider.url.replace("/v1", f"/put/{name}"))
                self.send_header("X-Together-File-Id", name)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                provider.files[self.path.rpartition("/")[2]] = data
                self.send(200, b"")

            def listed(self, query: dict[str, list[str]]) -> None:
                # The newest first.
                jobs = list(provider.jobs.values())[::-1]
                if "after" in query:
                    names = [job["id"] for job in jobs]
                    jobs = jobs[names.index(query["after"][0]) + 1 :]
                if provider.together:
                    self.send(200, [provider._shown(job) for job in jobs])
                    return
                more = len(jobs) > provider.page
                self.send(200, {"object": "list", "data": jobs[: provider.page], "has_more": more})

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                place = urlsplit(self.path)
                route = place.path.removeprefix("/v1")
                with provider._lock:
                    provider.asked.append(f"POST {route}")
                    provider.queries.append(place.query)
                    if route == provider.gone:
                        self.send(400, {"error": {"message": "not this file"}})
                        return
                    if route == "/files":
                        phase = "upload"
                        if self.refuses(phase):
                            return
                        if provider.together:
                            self.redirected(data)
                            return
                        answer: dict[str, Any] = {"id": provider._keep(_file_of(data))}
                    elif route.endswith("/preprocess"):
                        phase = "upload"
                        name = route.split("/")[2]
                        answer = {
                            "id": name,
                            "object": "file",
                            "filename": "f.jsonl",
                            "bytes": len(provider.files[name]),
                            "created_at": 1,
                            "FileType": "jsonl",
                            "purpose": "batch-api",
                            "Processed": True,
                        }
                    elif route == "/batches":
                        phase = "create"
                        if self.refuses(phase):
                            return
                        answer = provider._shown(provider._begin(json.loads(data)))
                        answer = {"job": answer} if provider.together else answer
                    else:
                        self.send(404, {"error": {"message": "batches only"}})
                        return
                if provider._done(phase):
                    self.send(200, answer)

        return Handler

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        if not self.together:
            return dict(job)
        shown = {name: value for name, value in job.items() if name not in ("metadata", "object")}
        return {**shown, "status": str(job["status"]).upper(), "created_at": "2026-01-01T00:00:00Z"}

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        assert ("metadata" in body) is not self.together
        assert body["endpoint"] == "/v1/chat/completions"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert len({line["body"]["model"] for line in lines}) == 1
        assert len({line["custom_id"] for line in lines}) == len(lines)
        assert not any(line["body"].get("stream") for line in lines)
        job = {
            "id": f"batch_{len(self.jobs) + 1}",
            "object": "batch",
            "status": "in_progress",
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "created_at": time.time(),
        }
        self.jobs[job["id"]] = job
        return job


class Refusal(Exception):
    """The answer to a single request of a job is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message}}


def _file_of(form: bytes) -> bytes:
    """The file in a form."""
    mark, _, rest = form.partition(b"\r\n")
    for part in (mark + b"\r\n" + rest).split(mark):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise AssertionError("there is no file in the form")
