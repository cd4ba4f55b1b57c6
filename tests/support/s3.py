"""A loopback server that speaks as much of S3 as clients need to list, read and write files."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Sun, 01 Nov 2026 00:00:00 GMT"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class S3:
    """objects: contents by `bucket/key`. environment: that leads clients to it."""

    environment: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)


@contextmanager
def serving_s3() -> Iterator[S3]:
    """Such a server with an empty bucket of any name."""
    store = S3()

    class Handler(_Handler):
        s3 = store

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "some-id",
            "AWS_SECRET_ACCESS_KEY": "some-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    s3: S3
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def _query(self) -> dict[str, str]:
        found = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    @property
    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("Length") or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        body = b"<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>"
        self._answer(404, body, Content_Type="application/xml")

    def do_HEAD(self) -> None:
        if "/" not in self._name.rstrip("/"):
            self._answer(200)
            return
        self._get()

    def do_GET(self) -> None:
        if "list-type" in self._query:
            self._list()
        else:
            self._get()

    def _get(self) -> None:
        data = self.s3.objects.get(self._name)
        if data is None:
            self._missing()
            return
        facts = {"ETag": _mark(data), "Last_Modified": _DATE, "Accept_Ranges": "bytes"}
        asked = _RANGE.match(self.headers.get("Range", ""))
        if asked is None:
            self.send_response(200)
            part = data
        else:
            first = int(asked[1])
            last = min(int(asked[2] or len(data)), len(data) - 1)
            part = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        for name, value in facts.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part)

    def _list(self) -> None:
        query, bucket = self._query, self._name.rstrip("/")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found, folders = "", dict[str, None]()
        for name, data in sorted(self.s3.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if name == key or not key.startswith(prefix):
                continue
            inner, cut, _ = key[len(prefix) :].partition(delimiter or "\0")
            if cut:
                folders[prefix + inner + cut] = None
                continue
            found += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                f"<ETag>{escape(_mark(data))}</ETag>"
                "<LastModified>2026-11-01T00:00:00.000Z</LastModified></Contents>"
            )
        for folder in folders:
            found += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        count = found.count("<Contents>") + len(folders)
        body = (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>{found}"
            "</ListBucketResult>"
        )
        self._answer(200, body.encode(), Content_Type="application/xml")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            # HTTP's own chunks, and perhaps those of S3 in them.
            data = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        whole = b""
        while data:
            head, _, data = data.partition(b"\r\n")
            size = int(head.partition(b";")[0], 16)
            if not size:
                break
            whole, data = whole + data[:size], data[size + 2 :]
        return whole

    def do_PUT(self) -> None:
        query, data = self._query, self._body()
        if "uploadId" in query:
            self.s3.uploads[query["uploadId"]][int(query["partNumber"])] = data
        elif "/" in self._name.rstrip("/"):
            self.s3.objects[self._name] = data
        self._answer(200, ETag=_mark(data))

    def do_POST(self) -> None:
        query, _ = self._query, self._body()
        if "uploads" in query:
            upload = str(len(self.s3.uploads))
            self.s3.uploads[upload] = {}
            told = f"<UploadId>{upload}</UploadId>"
            self._answer(200, _result("InitiateMultipartUpload", told))
            return
        parts = self.s3.uploads.pop(query["uploadId"])
        data = b"".join(parts[number] for number in sorted(parts))
        self.s3.objects[self._name] = data
        told = f"<ETag>{escape(_mark(data))}</ETag>"
        self._answer(200, _result("CompleteMultipartUpload", told))

    def do_DELETE(self) -> None:
        self.s3.objects.pop(self._name, None)
        self._answer(204)


def _mark(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _result(name: str, told: str) -> bytes:
    return f"<{name}Result>{told}</{name}Result>".encode()
