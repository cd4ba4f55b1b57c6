"""What OUT of `moa batch` is by its name: a table, Parquet, packed; and how it goes on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.batch.test_batch import lines_of
from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

BUSY = Reply(status=500, error={"error": {"message": "out of order"}})


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("alone", aggregator="agg", rounds=0)
    moa.configure(profile="alone", providers=moa.settings()["providers"])
    rows = [{"id": f"q{n}", "prompt": f'a "thing", {n}\nof two lines', "n": n} for n in range(1, 6)]
    write_lines(moa.folder / "in.jsonl", rows)
    return moa


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, as texts where it is a table of texts."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return found
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if ".jsonl" in path.suffixes:
        return [json.loads(line) for line in data.splitlines()]
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


@pytest.mark.parametrize(
    "name", ["out.csv", "out.TSV", "out.csv.gz", "out.tsv.gz", "out.jsonl.gz", "out.parquet"]
)
def test_out_is_what_its_name_tells(moa: Moa, upstream: Upstream, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = moa.folder / name
    ran = moa.run("batch", "in.jsonl", name)
    assert ran.code == 0, ran.err
    assert moa.run("batch", "in.jsonl", "plain.jsonl").code == 0
    rows, plain = (
        rows_of(path.rename(path.with_name(name.lower()))),
        lines_of(moa.folder / "plain.jsonl"),
    )
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(1, 6)]
    assert list(rows[0]) == list(plain[0])
    for row, line in zip(rows, plain, strict=True):
        assert (row["prompt"], row["reply"]) == (line["prompt"], line["reply"])
        assert int(row["n"]) == line["n"]
        usage = row["usage"] if isinstance(row["usage"], dict) else json.loads(row["usage"])
        assert usage == line["usage"]
    if name.endswith(".parquet"):
        assert isinstance(rows[0]["n"], int)
        assert isinstance(rows[0]["seconds"], float)
    card = json.loads((moa.folder / f"{name}.card.json").read_bytes())
    assert (card["output"]["name"], card["output"]["answers"]) == (name, 5)


def test_a_table_has_a_column_for_whatever_a_line_has(moa: Moa, upstream: Upstream) -> None:
    moa.configure(profile="alone", retries=0, providers=moa.settings()["providers"])
    upstream.enqueue("agg", BUSY, ANSWER, BUSY)
    ran = moa.run("batch", "in.jsonl", "out.csv", "--concurrency", "1", "-n", "2")
    assert ran.code == 1
    first, second = rows_of(moa.folder / "out.csv")
    failed, good = (first, second) if first["error"] else (second, first)
    assert json.loads(failed["error"])["kind"] == "ServerFailed"
    assert (failed["reply"], good["error"]) == ("", "")
    assert stat.S_IMODE((moa.folder / "out.csv").stat().st_mode) == 0o600
    # The same command tries it again, and more may come behind.
    assert moa.run("batch", "in.jsonl", "out.csv").code == 0
    assert [row["id"] for row in rows_of(moa.folder / "out.csv")] == [f"q{n}" for n in range(1, 6)]
    assert "error" not in rows_of(moa.folder / "out.csv")[0]


def test_a_table_goes_on_after_a_kill(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(delay=0.3))
    start = ("batch", "in.jsonl", "out.csv", "--concurrency", "1")
    with moa.start(*start) as process:
        while len(upstream.chats()) < 4:
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (moa.folder / "out.csv").exists()
    upstream.always("*", ANSWER)
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert "are there and not asked for again" in ran.err
    assert [row["id"] for row in rows_of(moa.folder / "out.csv")] == [f"q{n}" for n in range(1, 6)]
    # At most what was in flight was asked again.
    assert len(upstream.chats()) <= 6
    # OUT is made of the answers in the state, and made again where it is gone.
    (moa.folder / "out.csv").unlink()
    assert moa.run(*start).code == 0
    assert len(rows_of(moa.folder / "out.csv")) == 5
    assert len(upstream.chats()) <= 6


def test_json_lines_of_an_earlier_version_in_a_file_named_as_a_table_go_on(
    moa: Moa, upstream: Upstream
) -> None:
    assert moa.run("batch", "in.jsonl", "out.csv", "-n", "3").code == 0
    (moa.folder / "out.csv.state" / "answers.jsonl").replace(moa.folder / "out.csv")
    ran = moa.run("batch", "in.jsonl", "out.csv")
    assert ran.code == 0, ran.err
    assert [row["id"] for row in rows_of(moa.folder / "out.csv")] == [f"q{n}" for n in range(1, 6)]
    assert len(upstream.chats()) == 5


def test_answers_that_have_no_column_in_common(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("pyarrow")
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "x", "v": 1},
        {"id": 7, "prompt": "y", "v": 1.5},
        {"id": "c", "prompt": "z", "v": None, "more": {"k": [1]}},
        {"id": "d", "prompt": "z", "more": True},
        {"id": "e", "prompt": "z", "v": 2**70},
    ]
    write_lines(moa.folder / "in.jsonl", rows[:4])
    assert moa.run("batch", "in.jsonl", "out.parquet").code == 0
    found = rows_of(moa.folder / "out.parquet")
    assert [row["v"] for row in found] == [1.0, 1.5, None, None]
    assert [row["id"] for row in found] == ["a", "7", "c", "d"]
    assert [row["more"] for row in found] == [None, None, '{"k": [1]}', "true"]
    # A number that no column of numbers holds.
    write_lines(moa.folder / "in.jsonl", rows)
    ran = moa.run("batch", "in.jsonl", "out.parquet")
    assert ran.code == 0, ran.err
    assert len(rows_of(moa.folder / "out.parquet")) == 5


def test_a_shard_without_prompts_has_an_empty_table(moa: Moa, upstream: Upstream) -> None:
    names = ["out.csv", "out.jsonl.gz"]
    for name in names:
        assert moa.run("batch", "in.jsonl", name, "--shard", "9/9").code == 0
        assert rows_of(moa.folder / name) == []


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("out.csv", ["--no-save"], "name it `.jsonl`, or add --save"),
        ("out.parquet.gz", [], "Parquet is packed by itself"),
        ("out.xlsx", [], "out.xlsx: text cannot be written as .xlsx"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_asked(
    moa: Moa, upstream: Upstream, name: str, options: list[str], told: str
) -> None:
    ran = moa.run("batch", "in.jsonl", name, *options)
    assert ran.code == 2
    assert told in ran.err
    assert upstream.chats() == []
