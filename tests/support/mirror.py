"""A web server of files on 127.0.0.1, which can also break off, stall and lack them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["Mirror"]


class Mirror:
    """`with Mirror() as mirror:` serves `mirror.files` (by path) at `mirror.url`.

    asked: the paths in order of arrival. cut: those of which half is sent. stalled: those of
    which half is sent, and then nothing until the client has gone.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.stalled: set[str] = set()
        self.asked: list[str] = []
        self.half_sent = threading.Event()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        data = self.files.get(request.path)
        request.send_response(404 if data is None else 200)
        request.send_header("Content-Length", str(len(data or b"")))
        request.end_headers()
        broken = request.path in self.cut | self.stalled
        request.wfile.write((data or b"")[: len(data or b"") // 2 if broken else None])
        request.wfile.flush()
        if request.path in self.stalled:
            self.half_sent.set()
            self._closing.wait(60)
