"""`moa batch --shard` and `moa batch merge`: a batch in parts that know nothing of each other."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa, Ran
from tests.support.pages import ROOT, blocks, machine, run_shell
from tests.support.upstream import Reply, Upstream

BUSY = Reply(status=500, error={"error": {"message": "out of order"}})


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.configure(profile="one", providers=moa.settings()["providers"])
    return moa


def write_prompts(moa: Moa, count: int) -> None:
    rows = [{"id": f"q{n}", "prompt": f"what is thing {n}"} for n in range(1, count + 1)]
    write_lines(moa.folder / "in.jsonl", rows)


def answer_shard(moa: Moa, number: int, of: int, *options: str) -> Ran:
    return moa.run(
        "batch", "in.jsonl", f"part-{number}.jsonl", "--shard", f"{number}/{of}", *options
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in lines_of(path)]


@pytest.mark.parametrize(("count", "of"), [(10, 3), (9, 3), (2, 3), (5, 1)])
def test_shards_together_are_the_whole_batch(
    moa: Moa, upstream: Upstream, count: int, of: int
) -> None:
    write_prompts(moa, count)
    assert moa.run("batch", "in.jsonl", "whole.jsonl").code == 0
    asked = len(upstream.chats())
    for number in range(1, of + 1):
        assert answer_shard(moa, number, of).code == 0
    # Nothing is asked twice.
    assert len(upstream.chats()) == 2 * asked
    parts = [f"part-{number}.jsonl" for number in range(of, 0, -1)]
    ran = moa.run("batch", "merge", *parts, "merged.jsonl")
    assert (ran.code, ran.out) == (0, b""), ran.err
    assert f"{count} lines of {count} prompts in" in ran.err
    merged, whole = moa.folder / "merged.jsonl", moa.folder / "whole.jsonl"
    assert without_seconds(merged) == without_seconds(whole)
    assert len(upstream.chats()) == 2 * asked


def test_a_shard_goes_on_as_a_shard_only(moa: Moa, upstream: Upstream) -> None:
    write_prompts(moa, 6)
    assert answer_shard(moa, 2, 3, "-n", "3").code == 0
    assert [line["id"] for line in lines_of(moa.folder / "part-2.jsonl")] == ["q2"]
    # The limit is that of the whole batch, and may grow.
    assert answer_shard(moa, 2, 3).code == 0
    assert [line["id"] for line in lines_of(moa.folder / "part-2.jsonl")] == ["q2", "q5"]
    asked = len(upstream.chats())
    for shard in (["--shard", "1/3"], []):
        ran = moa.run("batch", "in.jsonl", "part-2.jsonl", *shard)
        assert ran.code == 1
        assert "with other settings: " in ran.err
        assert "shard" in ran.err
    assert len(upstream.chats()) == asked


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", "1.0/3"])
def test_what_is_no_shard_is_refused(moa: Moa, upstream: Upstream, shard: str) -> None:
    write_prompts(moa, 2)
    ran = moa.run("batch", "in.jsonl", "out.jsonl", f"--shard={shard}")
    assert ran.code == 2
    assert f"moa: --shard: `{shard}` is no shard" in ran.err
    assert upstream.chats() == []


def test_merge_tells_what_is_missing(moa: Moa, upstream: Upstream) -> None:
    write_prompts(moa, 7)
    assert answer_shard(moa, 1, 3).code == 0
    assert answer_shard(moa, 3, 3).code == 0
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-3.jsonl", "a.jsonl")
    assert ran.code == 1
    assert "5 lines of 7 prompts" in ran.err
    assert "moa: shard 2/3 is missing" in ran.err
    upstream.always("agg", BUSY)
    assert answer_shard(moa, 2, 3).code == 1
    ran = moa.run("batch", "merge", *(f"part-{n}.jsonl" for n in (1, 2, 3)), "b.jsonl")
    assert ran.code == 1
    assert "moa: 2 of them failed" in ran.err
    assert [line["id"] for line in lines_of(moa.folder / "b.jsonl")] == [
        f"q{n}" for n in range(1, 8)
    ]
    # One that was killed: its last line is torn.
    part = moa.folder / "part-3.jsonl"
    part.write_bytes(part.read_bytes()[:-10])
    ran = moa.run("batch", "merge", *(f"part-{n}.jsonl" for n in (1, 2, 3)), "c.jsonl")
    assert ran.code == 1
    assert "moa: shard 3/3 is not complete" in ran.err


def test_merge_refuses_what_does_not_belong_together(moa: Moa) -> None:
    write_prompts(moa, 4)
    for number in (1, 2):
        assert answer_shard(moa, number, 2).code == 0
    folder = moa.folder
    for name in ("part-1.jsonl", "part-1.jsonl.state"):
        copy = folder / name.replace("part-1", "copy")
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, copy)
    ran = moa.run("batch", "merge", "part-1.jsonl", "copy.jsonl", "out.jsonl")
    assert (ran.code, "are the same shard: 1/2" in ran.err) == (1, True)
    shutil.rmtree(folder / "copy.jsonl.state")
    ran = moa.run("batch", "merge", "part-1.jsonl", "copy.jsonl", "out.jsonl")
    assert ran.code == 1
    assert "q1 has an answer already" in ran.err
    assert moa.run("batch", "in.jsonl", "third.jsonl", "--shard", "3/3").code == 0
    ran = moa.run("batch", "merge", "part-1.jsonl", "third.jsonl", "out.jsonl")
    assert ran.code == 1
    assert "third.jsonl: is shard 3/3, but" in ran.err
    assert moa.run("batch", "in.jsonl", "strict.jsonl", "--shard", "2/2", "--strict").code == 0
    ran = moa.run("batch", "merge", "part-1.jsonl", "strict.jsonl", "out.jsonl")
    assert ran.code == 1
    assert "is of another batch than" in ran.err
    for parts, code, told in (
        (["part-1.jsonl", "part-2.jsonl"], 2, "part-2.jsonl: already exists"),
        (["part-1.jsonl", "gone.jsonl", "out.jsonl"], 1, "gone.jsonl: there is no such file"),
        (["in.jsonl", "out.jsonl"], 1, "in.jsonl:1: is no line of a batch's answers"),
        (["out.jsonl"], 2, "there is nothing to merge"),
    ):
        ran = moa.run("batch", "merge", *parts)
        assert (ran.code, told in ran.err) == (code, True), ran.err
    assert not (folder / "out.jsonl").exists()


def test_parts_without_a_state_are_put_together_too(moa: Moa) -> None:
    write_prompts(moa, 4)
    for number in (1, 2):
        assert answer_shard(moa, number, 2, "--no-save").code == 0
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-2.jsonl", "out.jsonl")
    assert ran.code == 0
    assert ran.err.count("has no state") == 2
    assert [line["id"] for line in lines_of(moa.folder / "out.jsonl")] == ["q1", "q2", "q3", "q4"]


def merged_and_whole(moa: Moa, *options: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of two shards together, and those of the same batch in one process."""
    assert moa.run("batch", "in.jsonl", "whole.jsonl", *options).code == 0
    for number in (1, 2):
        assert answer_shard(moa, number, 2, *options).code == 0
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-2.jsonl", "merged.jsonl")
    assert ran.code == 0, ran.err
    return without_seconds(moa.folder / "merged.jsonl"), without_seconds(moa.folder / "whole.jsonl")


def test_all_answers_to_a_prompt_are_of_one_shard(moa: Moa) -> None:
    write_prompts(moa, 5)
    merged, whole = merged_and_whole(moa, "--answers", "2")
    assert merged == whole
    part = lines_of(moa.folder / "part-2.jsonl")
    assert [(line["id"], line["sample"]) for line in part] == [
        ("q2", 1),
        ("q2", 2),
        ("q4", 1),
        ("q4", 2),
    ]


def test_rows_that_are_left_out_are_dealt_to_no_shard(moa: Moa) -> None:
    rows = [{"id": f"q{n}", "prompt": f"what is thing {n}"} for n in range(1, 8)]
    # Dealt as all rows are, these would leave the first shard less than the second.
    for number in (0, 2):
        rows[number] = {"id": f"q{number + 1}", "prompt": ""}
    write_lines(moa.folder / "in.jsonl", rows)
    merged, whole = merged_and_whole(moa, "--skip-bad")
    assert [line["id"] for line in merged] == ["q2", "q4", "q5", "q6", "q7"]
    assert merged == whole


def test_shards_of_openai_lines_are_put_together(moa: Moa) -> None:
    messages = [{"role": "user", "content": "what is it"}]
    rows = [{"custom_id": f"c{n}", "body": {"messages": messages}} for n in range(1, 4)]
    write_lines(moa.folder / "in.jsonl", rows)
    for number in (1, 2):
        assert answer_shard(moa, number, 2).code == 0
    ran = moa.run("batch", "merge", "part-2.jsonl", "part-1.jsonl", "merged.jsonl")
    assert ran.code == 0, ran.err
    merged = lines_of(moa.folder / "merged.jsonl")
    assert [line["custom_id"] for line in merged] == ["c1", "c2", "c3"]


def test_a_field_called_sample_is_the_inputs_own(moa: Moa, upstream: Upstream) -> None:
    rows = [
        {"id": f"q{n}", "prompt": f"what is thing {n}", "sample": 8 - 2 * n} for n in range(1, 4)
    ]
    write_lines(moa.folder / "in.jsonl", rows)
    merged, whole = merged_and_whole(moa)
    assert merged == whole
    asked = len(upstream.chats())
    ran = moa.run("batch", "in.jsonl", "whole.jsonl")
    assert ran.code == 0, ran.err
    assert len(upstream.chats()) == asked


def card_of(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(path.with_name(f"{path.name}.card.json").read_bytes())
    return card


def test_a_merged_card_adds_up_those_of_its_parts(moa: Moa, upstream: Upstream) -> None:
    write_prompts(moa, 5)
    for number in (1, 2):
        assert answer_shard(moa, number, 2).code == 0
    parts = [moa.folder / f"part-{number}.jsonl" for number in (1, 2)]
    assert [card_of(part)["shard"] for part in parts] == ["1/2", "2/2"]
    assert moa.run("batch", "merge", "part-2.jsonl", "part-1.jsonl", "merged.jsonl").code == 0
    card = card_of(moa.folder / "merged.jsonl")
    assert card["output"]["name"] == "merged.jsonl"
    assert (card["output"]["answers"], card["output"]["failed"]) == (5, 0)
    assert [(part["name"], part["shard"], part["answers"]) for part in card["parts"]] == [
        ("part-1.jsonl", "1/2", 3),
        ("part-2.jsonl", "2/2", 2),
    ]
    for name in ("profile", "prompt", "seeds", "strict", "versions", "input"):
        assert card[name] == card_of(parts[0])[name], name
    assert card["models"]["lab:a"]["calls"] == 5
    assert card["models"]["lab:agg"]["answered_by"] == {"agg": 5}
    tokens = sum(card_of(part)["models"]["lab:agg"]["prompt_tokens"] for part in parts)
    assert card["models"]["lab:agg"]["prompt_tokens"] == tokens > 0


def test_a_part_without_a_card_is_told_of(moa: Moa, upstream: Upstream) -> None:
    write_prompts(moa, 4)
    for number in (1, 2):
        assert answer_shard(moa, number, 2).code == 0
    (moa.folder / "part-2.jsonl.card.json").unlink()
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-2.jsonl", "merged.jsonl")
    assert ran.code == 0
    assert "part-2.jsonl: has no card, so" in ran.err
    card = card_of(moa.folder / "merged.jsonl")
    assert [part["card"] for part in card["parts"]] == [True, False]
    assert (card["models"]["lab:a"]["calls"], card["output"]["answers"]) == (2, 4)
    # Without any card, there is nothing to add up.
    (moa.folder / "part-1.jsonl.card.json").unlink()
    ran = moa.run("batch", "merge", "part-1.jsonl", "part-2.jsonl", "other.jsonl")
    assert (ran.code, "card" in ran.err) == (0, False)
    assert not (moa.folder / "other.jsonl.card.json").exists()


@pytest.mark.parametrize("name", ["merged.csv", "new/merged.jsonl.gz"])
def test_parts_of_any_format_make_a_file_of_any_format(
    moa: Moa, upstream: Upstream, name: str
) -> None:
    write_prompts(moa, 5)
    for number, ending in ((1, "tsv"), (2, "jsonl")):
        part = f"part-{number}.{ending}"
        assert moa.run("batch", "in.jsonl", part, "--shard", f"{number}/2").code == 0
    ran = moa.run("batch", "merge", "part-1.tsv", "part-2.jsonl", name)
    assert ran.code == 0, ran.err
    data = (moa.folder / name).read_bytes()
    if name.endswith(".gz"):
        found = [json.loads(line)["id"] for line in gzip.decompress(data).splitlines()]
    else:
        found = [row["id"] for row in csv.DictReader(io.StringIO(data.decode()))]
    assert found == ["q1", "q2", "q3", "q4", "q5"]
    assert card_of(moa.folder / name)["output"]["answers"] == 5
    assert not list(moa.folder.glob(".moa*"))


def test_the_script_for_slurm_arrays_runs(tmp_path: Path, upstream: Upstream) -> None:
    upstream.always("*", ANSWER)
    moa = machine(tmp_path / "home", upstream.url)
    page = ROOT / "docs" / "how-to" / "batch.md"
    [script] = [block.text for block in blocks(page) if "#SBATCH" in block.text]
    (moa.folder / "batch.sh").write_text(script)
    rows = [{"id": f"q{number}", "prompt": f"thing {number}"} for number in range(6)]
    write_lines(moa.folder / "prompts.jsonl", rows)
    [tasks] = re.findall(r"--array=1-(\d+)", script)
    moa.environment["SLURM_ARRAY_TASK_COUNT"] = tasks
    # An array that is submitted again asks nothing again.
    for _ in range(2):
        for task in range(1, int(tasks) + 1):
            moa.environment["SLURM_ARRAY_TASK_ID"] = str(task)
            done = run_shell(moa, "bash", "-eu", "batch.sh")
            assert done.returncode == 0, done.stderr
    done = run_shell(moa, "bash", "-c", "moa batch merge array-*.jsonl all.jsonl")
    assert done.returncode == 0, done.stderr
    merged = lines_of(moa.folder / "all.jsonl")
    assert [line["id"] for line in merged] == [row["id"] for row in rows]
    assert len(upstream.chats()) == sum(line["usage"]["calls"] for line in merged)
