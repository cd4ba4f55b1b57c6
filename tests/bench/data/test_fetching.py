"""Public datasets, from a mirror on this machine."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from moa_cli.bench.data.datasets import DATASETS, PublicFile
from tests.support.command import PATIENCE, Moa, Ran
from tests.support.mirror import Mirror


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as running:
        yield running


def path_of(source: PublicFile) -> str:
    """Where a mirror has it."""
    return "/" + source.address.removeprefix("https://")


def fetch(moa: Moa, mirror: Mirror, *arguments: str) -> Ran:
    """Run `moa bench fetch` against the mirror."""
    return moa.run("bench", "fetch", *arguments, env={"MOA_BENCH_MIRROR": mirror.url})


def serve_mt(mirror: Mirror, data: Path) -> None:
    """Have the real files of MT-Bench."""
    for source in DATASETS["mt"].fetched:
        mirror.files[path_of(source)] = (data / source.file).read_bytes()


def files_in(folder: Path) -> set[str]:
    """Everything there, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_login_of_a_mirror_is_not_shown(moa: Moa, mirror: Mirror) -> None:
    mirrors = (mirror.url.replace("://", "://me:hidden@"), "http://me:hidden@127.0.0.1:1/x")
    for address in mirrors:
        ran = moa.run("bench", "fetch", "mt", env={"MOA_BENCH_MIRROR": address})
        assert "://***@127.0.0.1" in ran.err
        assert "hidden" not in ran.err + ran.text
    address = "http://127.0.0.1:1/x?token=hidden&file="
    ran = moa.run("bench", "fetch", "mt", env={"MOA_BENCH_MIRROR": address})
    assert "http://127.0.0.1:1/x?token=***&file=/" in ran.err
    assert "hidden" not in ran.err + ran.text


def test_the_files_come_checked_and_once(moa: Moa, mirror: Mirror, data: Path) -> None:
    serve_mt(mirror, data)
    ran = fetch(moa, mirror, "mt")
    assert ran.code == 0, ran.err
    cache = Path(moa.environment["MOA_CACHE_DIR"]) / "bench"
    assert ran.text == f"mt: 3 files in {cache}, 3 fetched\nmt: licence: Apache-2.0\n"
    assert files_in(cache) == {dataset.file for dataset in DATASETS["mt"].fetched}
    for source in DATASETS["mt"].fetched:
        assert (cache / source.file).read_bytes() == (data / source.file).read_bytes()
    # They are where a run looks for them.
    rows = json.loads(moa.run("bench", "list", "--json").text)
    assert {row["name"]: row["items"] for row in rows}["mt"] == 80
    asked = len(mirror.asked)
    assert "3 files" in fetch(moa, mirror, "mt").text
    assert len(mirror.asked) == asked
    # What was changed since is fetched again, nothing else.
    (cache / "mt_bench" / "question.jsonl").write_text("{}\n")
    assert ", 1 fetched" in fetch(moa, mirror, "mt").text
    assert mirror.asked[asked:] == [path_of(DATASETS["mt"].fetched[0])]


def test_another_file_than_the_published_one_is_not_kept(moa: Moa, mirror: Mirror) -> None:
    source = DATASETS["gsm8k"].fetched[0]
    mirror.files[path_of(source)] = b'{"question": "1+1?", "answer": "#### 3"}\n'
    ran = fetch(moa, mirror, "gsm8k", "--data", "data")
    assert (ran.code, ran.out) == (1, b"")
    *_, last = ran.err.splitlines()
    assert last.startswith(f"moa: {mirror.url}{path_of(source)}: is not the published file: ")
    assert files_in(moa.folder) == set()


def test_what_was_whole_before_an_interruption_stays(moa: Moa, mirror: Mirror, data: Path) -> None:
    serve_mt(mirror, data)
    first, second, third = map(path_of, DATASETS["mt"].fetched)
    mirror.cut.add(second)
    ran = fetch(moa, mirror, "mt", "--data", "data")
    assert ran.code == 1
    assert f"moa: {mirror.url}{second}: was not received completely: " in ran.err
    assert "Traceback" not in ran.err
    assert files_in(moa.folder / "data") == {"mt_bench/question.jsonl"}
    mirror.cut.clear()
    mirror.asked.clear()
    assert fetch(moa, mirror, "mt", "--data", "data").code == 0
    assert first not in mirror.asked
    assert third in mirror.asked


def test_a_file_that_is_gone_is_named(moa: Moa, mirror: Mirror) -> None:
    ran = fetch(moa, mirror, "all", "--data", "data")
    assert ran.code == 1
    address = mirror.url + path_of(DATASETS["alpaca"].fetched[0])
    assert ran.err.splitlines()[1:] == [
        f"moa: {address}: answered 404 Not Found (the same command fetches what is missing)"
    ]
    assert files_in(moa.folder) == set()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_nothing_partial_is_left_by_a_signal(
    moa: Moa, mirror: Mirror, data: Path, sent: signal.Signals, code: int
) -> None:
    serve_mt(mirror, data)
    mirror.stalled.add(path_of(DATASETS["mt"].fetched[1]))
    arguments = ("bench", "fetch", "mt", "--data", "data")
    with moa.start(*arguments, env={"MOA_BENCH_MIRROR": mirror.url}) as process:
        assert mirror.half_sent.wait(30)
        process.send_signal(sent)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert b"Traceback" not in told
    assert files_in(moa.folder) == {"data/mt_bench/question.jsonl"}


def test_a_file_without_published_hash_says_so(moa: Moa, mirror: Mirror, data: Path) -> None:
    items, *judge = DATASETS["flask"].fetched
    for source in judge:
        mirror.files[path_of(source)] = (data / source.file).read_bytes()
    row = b'{"idx": 1, "instruction": "x"}\n'
    mirror.files[path_of(items)] = row * 3
    ran = fetch(moa, mirror, "flask", "--data", "data")
    assert ran.code == 1
    assert "is not the published file: it has 3 lines instead of 1740" in ran.err
    assert files_in(moa.folder) == set()
    mirror.files[path_of(items)] = row * 1740
    for _ in range(2):
        ran = fetch(moa, mirror, "flask", "--data", "data")
        assert ran.code == 0, ran.err
        assert ran.err.count("not checked (no published hash)") == 1
    assert ran.text.startswith("flask: 4 files in data, 0 fetched\n")


def test_only_what_can_be_fetched_has_a_name(moa: Moa) -> None:
    assert moa.run("bench", "fetch", "gms8k").err == (
        "moa: there is no dataset `gms8k` to fetch (did you mean `gsm8k`?)\n"
    )
    ran = moa.run("bench", "fetch", "math")
    assert ran.code == 2
    assert "its redistribution is disputed" in ran.err


def test_hashes_are_those_of_the_real_files(data: Path) -> None:
    from hashlib import sha256

    known = {file.file: file.sha256 for dataset in DATASETS.values() for file in dataset.fetched}
    there = [name for name in known if (data / name).is_file()]
    assert len(there) == 8
    assert {name: sha256((data / name).read_bytes()).hexdigest() for name in there} == {
        name: known[name] for name in there
    }
