"""Batches from and to files at addresses: S3 on loopback, by Arrow's client."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER
from tests.support.command import Moa
from tests.support.s3 import S3, serving_s3
from tests.support.upstream import Reply, Upstream

OUT = "s3://bucket/out/answers.jsonl"


@pytest.fixture
def s3() -> Iterator[S3]:
    pytest.importorskip("fsspec", reason="needs the extra `ray`")
    pytest.importorskip("pyarrow", reason="needs the extra `ray`")
    with serving_s3() as server:
        yield server


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream, s3: S3) -> Moa:
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.configure(profile="one", providers=moa.settings()["providers"])
    moa.environment |= s3.environment
    return moa


def json_lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(*rows: dict[str, Any]) -> bytes:
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file, row_group_size=2)
    return file.getvalue()


def without_seconds(data: bytes) -> list[dict[str, Any]]:
    return [{**json.loads(line), "seconds": 0} for line in data.splitlines()]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_folder_there_is_answered_as_a_file_here(
    moa: Moa, upstream: Upstream, s3: S3, kind: str
) -> None:
    rows = [{"id": f"q{number}", "prompt": f"thing {number}"} for number in range(7)]
    (moa.folder / "in.jsonl").write_bytes(json_lines(*rows))
    assert moa.run("batch", "in.jsonl", "whole.jsonl", "-y").code == 0
    pack = json_lines if kind == "jsonl" else parquet
    for place, part in enumerate((rows[:3], rows[3:])):
        s3.objects[f"bucket/in/part-{place}.{kind}"] = pack(*part)
    s3.objects["bucket/in/_SUCCESS"] = b""
    s3.objects[f"bucket/in/_temporary/part-0.{kind}"] = pack(rows[0])
    asked = len(upstream.chats())
    ran = moa.run("batch", "s3://bucket/in/", OUT, "-y")
    assert ran.code == 0, ran.err
    assert f"is copied to {OUT}" in ran.err
    whole = (moa.folder / "whole.jsonl").read_bytes()
    assert without_seconds(s3.objects["bucket/out/answers.jsonl"]) == without_seconds(whole)
    card = json.loads(s3.objects["bucket/out/answers.jsonl.card.json"])
    assert card["input"]["rows"] == card["output"]["answers"] == 7
    assert len(upstream.chats()) == 2 * asked
    # Nothing is asked again, and what was added there is.
    del s3.objects["bucket/out/answers.jsonl"]
    s3.objects[f"bucket/in/part-2.{kind}"] = pack({"id": "q7", "prompt": "thing 7"})
    assert moa.run("batch", f"s3://bucket/in/part-*.{kind}", OUT, "-y").code == 0
    assert len(upstream.chats()) == 2 * asked + 2
    assert len(without_seconds(s3.objects["bucket/out/answers.jsonl"])) == 8
    for name, data in s3.objects.items():
        assert b"some-secret" not in data, name


def test_a_batch_there_goes_on_after_failures(moa: Moa, upstream: Upstream, s3: S3) -> None:
    s3.objects["bucket/in.csv"] = b"prompt\ngood\nbad\n"
    bad = Reply(status=400, error={"error": {"message": "out of order"}})
    upstream.always("a", lambda request: bad if "bad" in str(request.messages) else ANSWER)
    upstream.always("agg", lambda request: bad if "bad" in str(request.messages) else ANSWER)
    assert moa.run("batch", "s3://bucket/in.csv", OUT, "-y").code == 1
    assert len(without_seconds(s3.objects["bucket/out/answers.jsonl"])) == 2
    upstream.always("*", ANSWER)
    upstream.always("a", ANSWER)
    upstream.always("agg", ANSWER)
    asked = len(upstream.chats())
    assert moa.run("batch", "s3://bucket/in.csv", OUT, "-y").code == 0
    assert len(upstream.chats()) - asked == 2
    lines = without_seconds(s3.objects["bucket/out/answers.jsonl"])
    assert [line["reply"] is not None for line in lines] == [True, True]


def test_what_is_not_there_or_not_ours(moa: Moa, upstream: Upstream, s3: S3) -> None:
    s3.objects["bucket/in.jsonl"] = json_lines({"prompt": "x"})
    s3.objects["bucket/out/answers.jsonl"] = b"of somebody else\n"
    for source, target, code, told in (
        ("s3://bucket/no.jsonl", "out.jsonl", 1, "s3://bucket/no.jsonl: cannot be read"),
        ("s3://bucket/none/*.jsonl", "out.jsonl", 1, "there is no such file"),
        ("foo://bucket/in.jsonl", "out.jsonl", 2, "foo://bucket/in.jsonl: cannot be reached"),
        ("s3://id:some-password@bucket/in.jsonl", "out.jsonl", 2, "must hold no password"),
        ("s3://bucket/in.jsonl", OUT, 1, f"{OUT}: already exists"),
        ("s3://bucket/in.jsonl", "s3://bucket/out/", 2, "names no file"),
    ):
        ran = moa.run("batch", source, target, "-y")
        assert ran.code == code, ran.err
        assert told in ran.err
        assert "Traceback" not in ran.err
        assert "some-password" not in ran.err
    assert s3.objects["bucket/out/answers.jsonl"] == b"of somebody else\n"
    assert upstream.chats() == []


def test_answers_there_as_a_table(moa: Moa, s3: S3) -> None:
    import pyarrow.parquet

    s3.objects["bucket/in.jsonl"] = json_lines({"id": "x", "prompt": "one"})
    ran = moa.run("batch", "s3://bucket/in.jsonl", "s3://bucket/out.parquet", "-y")
    assert ran.code == 0, ran.err
    table = pyarrow.parquet.read_table(io.BytesIO(s3.objects["bucket/out.parquet"]))
    assert table.column("id").to_pylist() == ["x"]


def test_the_files_of_a_folder_tell_their_format(moa: Moa, upstream: Upstream, s3: S3) -> None:
    s3.objects["bucket/in/one.jsonl"] = json_lines({"prompt": "thing"})
    assert moa.run("batch", "s3://bucket/in/", "out.jsonl", "-y").code == 0
    [request] = upstream.chats("a")
    assert request.messages[-1]["content"] == "thing"
    s3.objects["bucket/in/README"] = b"What is in here\n"
    ran = moa.run("batch", "s3://bucket/in/", "other.jsonl", "-y")
    assert ran.code == 2
    assert "s3://bucket/in/: holds files of different formats: jsonl, lines" in ran.err
    assert len(upstream.chats("a")) == 1


@contextmanager
def serving(content: bytes, answered: Callable[[str, str | None], int]) -> Iterator[int]:
    """The port of a web server. answered: the status for a path and a login at a proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(answered(self.path, self.headers["Proxy-Authorization"]))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_signed_address_names_a_file_and_shows_no_signature(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra `ray`")
    rows = json_lines({"prompt": "thing"})

    def answered(path: str, login: str | None) -> int:
        return 200 if "signature=right" in path else 403

    with serving(rows, answered) as port:
        address = f"http://127.0.0.1:{port}/in.jsonl?signature="
        ran = moa.run("batch", f"{address}right", "out.jsonl", "-y")
        assert ran.code == 0, ran.err
        refused = moa.run("batch", f"{address}wrong", "other.jsonl", "-y")
    [request] = upstream.chats("a")
    assert request.messages[-1]["content"] == "thing"
    card = (moa.folder / "out.jsonl.card.json").read_text("utf-8")
    assert json.loads(card)["input"]["name"] == "in.jsonl"
    assert refused.code == 1
    assert "in.jsonl: cannot be read or written: 403 Forbidden\n" in refused.err
    assert "signature" not in ran.err + refused.err + card


def test_a_file_at_a_web_server_comes_through_the_proxy(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra `ray`")
    rows = json_lines({"prompt": "thing"})
    asked: list[tuple[str, str | None]] = []

    address = "http://files.invalid/in.jsonl"

    def answered(path: str, login: str | None) -> int:
        asked.append((path, login))
        return 200

    with serving(rows, answered) as port:
        given = {"HTTP_PROXY": f"http://me:s%40cret@127.0.0.1:{port}"}
        ran = moa.run("batch", address, "out.jsonl", "-y", env=given)
    assert ran.code == 0, ran.err
    assert len(upstream.chats("a")) == 1
    login = base64.b64encode(b"me:s@cret").decode()
    assert set(asked) == {(address, f"Basic {login}")}
    for proxy, wrong in (
        ("socks5://127.0.0.1:9", "ALL_PROXY: batches read no web address through a SOCKS proxy"),
        ("ftp://127.0.0.1:9", "ALL_PROXY: proxies with ftp:// are not supported"),
    ):
        ran = moa.run("batch", address, "other.jsonl", "-y", env={"ALL_PROXY": proxy})
        assert (ran.code, f"{address}: {wrong}" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://[::1/in.jsonl?signature=1", 2),
        ("HTTPS://127.0.0.1:9/in.jsonl?signature=1", 1),
        ("http://signature@127.0.0.1:9/in.jsonl", 1),
        ("abfs://container/in.jsonl?sas_token=signature", 2),
        ("nowhere://container/in.jsonl?sas_token=signature", 2),
    ],
)
def test_what_signs_an_address_is_in_no_error(moa: Moa, address: str, code: int) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra `ray`")
    ran = moa.run("batch", address, "out.jsonl", "-y")
    assert ran.code == code, ran.err
    assert ": cannot be " in ran.err or ": is no address" in ran.err
    assert ("127.0.0.1" in address) == ("Cannot connect to host" in ran.err)
    assert "signature" not in ran.err


def test_answers_are_not_asked_for_if_they_cannot_be_written(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra `ray`")
    (moa.folder / "in.jsonl").write_bytes(json_lines({"prompt": "thing"}))
    ran = moa.run("batch", "in.jsonl", "http://127.0.0.1:9/out.jsonl?signature=1", "-y")
    assert ran.code == 2
    assert ran.err.startswith("moa: http://127.0.0.1:9/out.jsonl: cannot be written")
    assert upstream.chats("a") == []
    assert not list(moa.folder.glob("out*"))


def test_the_answers_of_a_store_with_options_are_told_without_them(moa: Moa) -> None:
    (moa.folder / "in.jsonl").write_bytes(json_lines({"prompt": "thing"}))
    ran = moa.run("batch", "in.jsonl", f"{OUT}?region=here", "-y")
    assert f"in {OUT}, " in ran.err
    assert "region" not in ran.err


def test_a_folder_of_this_machine_by_its_address(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("fsspec", reason="needs the extra `ray`")
    (moa.folder / "in").mkdir()
    (moa.folder / "in" / "a[1].jsonl").write_bytes(json_lines({"prompt": "thing"}))
    (moa.folder / "in" / "b").mkdir()
    address = f"file://{moa.folder}/in"
    for source in (address, f"{address}/*", f"{address}/a[1].jsonl"):
        asked = len(upstream.chats())
        for _ in range(2):
            ran = moa.run("batch", source, "in/out.jsonl", "-y")
            assert ran.code == 0, ran.err
        assert len(upstream.chats()) == asked + 2
        for path in (moa.folder / "in").glob("out.jsonl*/*"):
            path.unlink()
        for path in (moa.folder / "in").glob("out.jsonl*"):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.slow
def test_a_google_store_that_cannot_be_reached_is_told_of_soon(moa: Moa) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://127.0.0.1:{port}"}
    ran = moa.run("batch", "gs://bucket/in.jsonl", "out.jsonl", "-y", env=env, patience=280)
    assert ran.code == 1
    assert ran.err.startswith("moa: gs://bucket/in.jsonl: cannot be read or written: "), ran.err
