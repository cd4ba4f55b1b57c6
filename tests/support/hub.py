"""A model hub on loopback that speaks what `huggingface_hub` asks of one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Hub", "HubModel", "hub"]

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubModel:
    """A repository. files: by name. lies: of a file's name, the hash that is told instead.

    small: files that are told with git's own hash, as the hub does for those outside LFS. refusal:
    the status and code that answer every question about it, with the request's token in the
    message. told: what is told of it instead.
    """

    files: dict[str, bytes]
    lies: dict[str, str] = field(default_factory=dict)
    small: tuple[str, ...] = ()
    refusal: tuple[int, str] | None = None
    told: bytes | None = None


@dataclass
class Hub:
    """The hub as a test sees it. sent: the bytes of each transfer, with where it began.

    stop_at: a transfer that begins before this byte ends there: it waits for `go_on`, and is cut
    off.
    """

    models: dict[str, HubModel]
    url: str = ""
    sent: list[tuple[int, int]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    stop_at: int | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer about a repository, or send a file of it."""
        self.served.tokens.append(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            owner, name = path.removeprefix("/api/models/").split("/")[:2]
            self._tell(f"{owner}/{name}")
            return
        owner, name, _, _, file = path.lstrip("/").split("/", 4)
        self._send(self.served.models[f"{owner}/{name}"].files[file])

    def _tell(self, repo: str) -> None:
        model = self.served.models.get(repo)
        status, code = (404, "RepoNotFound") if model is None else (model.refusal or (200, ""))
        rows = [self._row(model, name) for name in model.files] if model else []
        body = json.dumps({"id": repo, "sha": _COMMIT, "siblings": rows}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header(
                "X-Error-Message", f"told by the hub {self.headers.get('Authorization')}"
            )
            body = b"{}"
        if model is not None and model.told is not None:
            body = model.told
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _row(self, model: HubModel, name: str) -> dict[str, Any]:
        content = model.files[name]
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
        if name not in model.small:
            told = model.lies.get(name) or hashlib.sha256(content).hexdigest()
            row["lfs"] = {"sha256": told, "size": len(content), "pointerSize": 130}
        return row

    def _send(self, content: bytes) -> None:
        hub = self.served
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            end, whole = len(content) - 1, len(content)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{whole}")
        self.end_headers()
        stop = hub.stop_at if hub.stop_at is not None and begin < hub.stop_at else len(content)
        self.wfile.write(content[begin:stop])
        self.wfile.flush()
        hub.sent.append((begin, stop - begin))
        if stop == len(content):
            return
        hub.stopped.set()
        hub.go_on.wait(60)
        hub.stop_at = None
        self.close_connection = True


@contextmanager
def hub(**models: HubModel) -> Iterator[Hub]:
    """A hub that holds the repositories `lab/NAME`, by their names."""
    serving = Hub({f"lab/{name}": model for name, model in models.items()})
    handler = type("Handler", (_Handler,), {"served": serving})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    serving.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield serving
    finally:
        serving.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
