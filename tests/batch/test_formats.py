"""What `moa batch` reads besides lines of its own: tables, Parquet, OpenAI's lines, packed files;
how prompts are made of their fields; and what is left out."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch.test_batch import lines_of
from tests.batch.test_output_formats import rows_of
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
    return moa


def asked(upstream: Upstream) -> list[str]:
    return sorted(str(request.messages[-1]["content"]) for request in upstream.chats())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.csv", 'id,question\r\na,"one, ""two""\nthree"\r\n\r\nb,zwölf\r\n'),
        ("in.csv", 'id;question\na;"one, ""two""\nthree"\nb;zwölf'),
        ("in.csv", 'id\tquestion\na\t"one, ""two""\nthree"\nb\tzwölf\n'),
        ("in.csv", 'id,question,,\na,"one, ""two""\nthree",,\nb,zwölf,,\n'),
        ("in.csv", 'sep=|\r\nid|question\r\na|"one, ""two""\nthree"\r\nb|zwölf\r\n'),
        ("in.csv", 'id;question;"x, y"\na;"one, ""two""\nthree";\nb;zwölf;\n'),
        ("in.TSV", 'id\tquestion\na\t"one, ""two""\nthree"\nb\tzwölf\n'),
    ],
    ids=["commas", "semicolons", "tabs in csv", "no names", "sep", "comma in head", "tabs"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_table_has_its_prompts_in_a_column(
    moa: Moa, upstream: Upstream, name: str, text: str, packed: bool
) -> None:
    content = text.encode("utf-8-sig")
    path = moa.folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    ran = moa.run("batch", path.name, "out.jsonl", "--column", "question")
    assert ran.code == 0, ran.err
    rows = lines_of(moa.folder / "out.jsonl")
    assert [(row["id"], row["question"]) for row in rows] == [
        ("a", 'one, "two"\nthree'),
        ("b", "zwölf"),
    ]
    assert asked(upstream) == ['one, "two"\nthree', "zwölf"]


def test_the_head_alone_tells_what_parts_cells(moa: Moa, upstream: Upstream) -> None:
    """Also where lines end as on an old Mac."""
    (moa.folder / "in.csv").write_bytes(b"id;prompt\ra;one, two\rb;three four")
    assert moa.run("batch", "in.csv", "out.jsonl").code == 0
    assert asked(upstream) == ["one, two", "three four"]


def test_cells_below_columns_without_a_name(moa: Moa) -> None:
    (moa.folder / "in.csv").write_text(",prompt,\n0,one,\n1,two,\n")
    assert moa.run("batch", "in.csv", "out.jsonl").code == 0
    assert [row[""] for row in lines_of(moa.folder / "out.jsonl")] == ["0", "1"]
    (moa.folder / "in.csv").write_text(",prompt,\n0,one,\n1,two,x\n")
    ran = moa.run("batch", "in.csv", "other.jsonl")
    assert ran.code == 1
    assert "in.csv:3: has several cells below columns without a name" in ran.err


@pytest.mark.parametrize(
    ("text", "options", "code", "told"),
    [
        ("id,q\n1,x\n", [], 2, "is a table without a column `prompt`; there are `id`, `q`"),
        ("prompt\nx\n", ["--id-field", "n"], 2, "without a column `n`"),
        ("prompt,prompt\nx,y\n", [], 2, "two columns are called `prompt`"),
        ("prompt,b\nx,y\nz\n", [], 1, "in.csv:3: has 1 cell, and the head 2"),
        ('prompt,b\n"x,y\n', [], 1, "in.csv:2: is no row"),
        ("prompt\n", [], 1, "holds no prompts"),
        ("", [], 2, "without a column `prompt`; there are none"),
    ],
    ids=["no column", "no id", "twice", "short row", "open quote", "head alone", "empty"],
)
def test_a_wrong_table_is_told_of(
    moa: Moa, upstream: Upstream, text: str, options: list[str], code: int, told: str
) -> None:
    (moa.folder / "in.csv").write_text(text)
    ran = moa.run("batch", "in.csv", "out.jsonl", *options)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert told in ran.err
    assert not upstream.chats()
    assert sorted(path.name for path in moa.folder.iterdir()) == ["in.csv"]


def test_parquet_is_read(moa: Moa, upstream: Upstream) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"id": [7, 8], "prompt": ["one", "two"], "tags": [["x"], []]})
    parquet.write_table(table, moa.folder / "in.parquet")
    assert moa.run("batch", "in.parquet", "out.jsonl").code == 0
    rows = lines_of(moa.folder / "out.jsonl")
    assert [(row["id"], row["prompt"], row["tags"]) for row in rows] == [
        (7, "one", ["x"]),
        (8, "two", []),
    ]
    twice = pyarrow.table([["one"], ["two"]], names=["prompt", "prompt"])
    parquet.write_table(twice, moa.folder / "twice.parquet")
    ran = moa.run("batch", "twice.parquet", "twice.jsonl")
    assert (ran.code, "two columns are called `prompt`" in ran.err) == (2, True)
    (moa.folder / "bad.parquet").write_bytes(b"PAR1 no more")
    ran = moa.run("batch", "bad.parquet", "bad.jsonl")
    assert ran.code == 1
    assert "bad.parquet: is a damaged Parquet file" in ran.err


def test_each_row_has_a_prompt_or_messages(moa: Moa, upstream: Upstream) -> None:
    """Where rows have the same columns, one of both is null."""
    rows: list[dict[str, Any]] = [
        {"prompt": "one", "messages": None},
        {"prompt": None, "messages": [{"role": "user", "content": "two"}]},
    ]
    write_lines(moa.folder / "in.jsonl", rows)
    assert moa.run("batch", "in.jsonl", "out.jsonl").code == 0
    assert asked(upstream) == ["one", "two"]
    write_lines(moa.folder / "in.jsonl", [*rows, {"prompt": None, "messages": None}])
    ran = moa.run("batch", "in.jsonl", "other.jsonl")
    assert (ran.code, "in.jsonl:3: `prompt` is missing or is not text" in ran.err) == (1, True)


def test_a_damaged_packed_file_is_told_of(moa: Moa) -> None:
    packed = gzip.compress(b'{"prompt": "p"}\n' * 100)
    (moa.folder / "in.jsonl.gz").write_bytes(packed[:-12])
    ran = moa.run("batch", "in.jsonl.gz", "out.jsonl")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "in.jsonl.gz: is a damaged gzip file" in ran.err
    piped = moa.run("batch", "-", "-", stdin=packed[:-12])
    assert (piped.code, piped.out) == (1, b"")
    whole = moa.run("batch", "-", "-", "-n", "2", stdin=packed)
    assert (whole.code, len(lines_of(whole.out))) == (0, 2)


def openai(number: int, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-x", "messages": [{"role": "user", "content": prompt}], **more}
    url = "/v1/chat/completions"
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body}


def test_openai_s_batch_lines_come_back_as_theirs(moa: Moa, upstream: Upstream) -> None:
    rows = [openai(1, "one", max_tokens=5), openai(2, "two", temperature=1)]
    write_lines(moa.folder / "in.jsonl", rows)
    upstream.enqueue("agg", ANSWER, BUSY, BUSY)
    start = ["batch", "in.jsonl", "out.jsonl", "--concurrency", "1"]
    ran = moa.run(*start)
    assert ran.code == 1
    assert (
        "the profile is used in place of what `body` sets for `max_tokens`, `temperature`"
        in ran.err
    )
    first, second = lines_of(moa.folder / "out.jsonl")
    assert (first["custom_id"], second["custom_id"]) == ("request-1", "request-2")
    response = first["response"]
    assert response["status_code"] == 200
    [choice] = response["body"]["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith("agg says ")
    assert choice["finish_reason"] == "stop"
    assert response["body"]["usage"]["total_tokens"] > 0
    assert (first["error"], second["response"]) == (None, None)
    assert second["error"]["code"] == "ServerFailed"
    assert first["moa"]["profile"] == "alone"
    # Only the failed one is asked again.
    assert moa.run(*start).code == 0
    found = lines_of(moa.folder / "out.jsonl")
    assert [row["custom_id"] for row in found] == ["request-1", "request-2"]
    assert all(row["error"] is None for row in found)
    assert len(upstream.chats()) == 4


def test_rows_may_have_the_fields_of_openai_s_answers(moa: Moa, upstream: Upstream) -> None:
    """Such as answers of an earlier batch, which are to be rated."""
    rows = [{"custom_id": f"r-{n}", "response": f"text {n}", "error": None} for n in (1, 2)]
    write_lines(moa.folder / "in.jsonl", rows)
    upstream.enqueue("agg", ANSWER, BUSY, BUSY)
    start = ["batch", "in.jsonl", "out.jsonl", "--prompt", "Rate {response}", "--concurrency", "1"]
    assert moa.run(*start).code == 1
    card = json.loads((moa.folder / "out.jsonl.card.json").read_text())
    assert (card["output"]["answers"], card["output"]["failed"]) == (1, 1)
    (moa.folder / "out.jsonl.state" / "index.db").unlink()
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    found = lines_of(moa.folder / "out.jsonl")
    assert [(row["id"], row["custom_id"], row["response"]) for row in found] == [
        (1, "r-1", "text 1"),
        (2, "r-2", "text 2"),
    ]
    assert len(upstream.chats()) == 4


def test_another_endpoint_of_openai_s_is_refused(moa: Moa, upstream: Upstream) -> None:
    write_lines(moa.folder / "in.jsonl", [{**openai(1, "one"), "url": "/v1/embeddings"}])
    ran = moa.run("batch", "in.jsonl", "out.jsonl")
    assert (ran.code, "in.jsonl:1: `url` is not /v1/chat/completions" in ran.err) == (1, True)
    assert not upstream.chats()


def test_prompts_are_made_of_fields(moa: Moa, upstream: Upstream) -> None:
    rows: list[dict[str, Any]] = [
        {"uid": "x", "text": "words", "n": 3, "tags": ["é"]},
        {"uid": "y", "text": "{text}", "n": None, "tags": []},
    ]
    write_lines(moa.folder / "in.jsonl", rows)
    template = "Sum up in {n} {{words}}: {text} {tags}"
    start = ["batch", "in.jsonl", "out.jsonl", "--prompt", template, "--id-field", "uid"]
    assert moa.run(*start).code == 0
    wanted = ['Sum up in 3 {words}: words ["é"]', "Sum up in null {words}: {text} []"]
    assert asked(upstream) == wanted
    found = lines_of(moa.folder / "out.jsonl")
    assert [(row["id"], row["uid"], row["prompt"]) for row in found] == [
        ("x", "x", wanted[0]),
        ("y", "y", wanted[1]),
    ]
    other = moa.run(*start[:4], "Other: {text}", *start[5:])
    assert (other.code, "`reading.template` was" in other.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--prompt", "the same {{x}}"], 2, "--prompt: names no field"),
        (["--prompt", "{x}", "--column", "y"], 2, "cannot be used together"),
        (["--prompt", "{other}"], 1, "in.jsonl:1: --prompt: there is no field `other`"),
        (["--column", "other"], 1, "in.jsonl:1: `other` is missing or is not text"),
        (["--format", "xml"], 2, "--format: there is no format `xml`"),
    ],
)
def test_wrong_fields_are_told_of(
    moa: Moa, upstream: Upstream, options: list[str], code: int, told: str
) -> None:
    write_lines(moa.folder / "in.jsonl", [{"x": "p"}])
    ran = moa.run("batch", "in.jsonl", "out.jsonl", *options)
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert not upstream.chats()


def test_each_prompt_is_asked_as_often_as_samples_say(moa: Moa, upstream: Upstream) -> None:
    write_lines(moa.folder / "in.jsonl", [{"id": "a", "prompt": "p"}, {"prompt": "q"}])
    upstream.enqueue("agg", ANSWER, ANSWER, BUSY, ANSWER, ANSWER, ANSWER, BUSY)
    start = ["batch", "in.jsonl", "out.jsonl", "--answers", "3", "--concurrency", "1"]
    assert moa.run(*start).code == 1
    wanted = [("a", 1), ("a", 2), ("a", 3), (2, 1), (2, 2), (2, 3)]
    for code, tried in ((0, 8), (0, 8)):
        found = lines_of(moa.folder / "out.jsonl")
        assert [(row["id"], row["sample"]) for row in found] == wanted
        assert moa.run(*start).code == code
        assert len(upstream.chats()) == tried
    assert not [row for row in lines_of(moa.folder / "out.jsonl") if "error" in row]


def test_bad_lines_are_left_out_if_asked_for(moa: Moa, upstream: Upstream) -> None:
    text = '{"id": 1, "prompt": "one"}\n{"x": 1}\nnot JSON\n{"id": 1, "prompt": "two"}\n'
    (moa.folder / "in.jsonl").write_text(text + '{"id": 9, "prompt": "nine"}\n')
    assert moa.run("batch", "in.jsonl", "out.jsonl").code == 1
    ran = moa.run("batch", "in.jsonl", "out.jsonl", "--skip-bad")
    assert ran.code == 0, ran.err
    assert "moa: left out: in.jsonl:2: `prompt` is missing" in ran.err
    assert "moa: left out: in.jsonl:3: is not JSON" in ran.err
    assert "moa: 3 bad rows left out\n" in ran.err
    assert "moa: 2 of 2 answers in out.jsonl" in ran.err
    assert [row["id"] for row in lines_of(moa.folder / "out.jsonl")] == [1, 9]
    assert asked(upstream) == ["nine", "one"]
    again = moa.run("batch", "in.jsonl", "out.jsonl", "--skip-bad")
    assert (again.code, len(upstream.chats())) == (0, 2)


def test_a_list_of_any_length_is_read_in_parts(moa: Moa, upstream: Upstream) -> None:
    huge = "word " * 300_000
    rows: list[dict[str, Any]] = [
        {"id": n, "prompt": f"p{n}", "x": {"deep": [n]}} for n in range(3)
    ]
    rows[1]["note"] = huge
    (moa.folder / "in.json").write_text(json.dumps(rows, indent=1))
    assert moa.run("batch", "in.json", "out.jsonl").code == 0
    found = lines_of(moa.folder / "out.jsonl")
    assert [row["id"] for row in found] == [0, 1, 2]
    assert found[1]["note"] == huge


def long_rows(count: int) -> list[dict[str, Any]]:
    """So many that a file of them is read in many pieces."""
    return [
        {"id": f"q{n}", "prompt": f"line\none of {n}: " + 'ä, "b" ' * 300} for n in range(count)
    ]


def write_as(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=30)
        return
    text = io.StringIO(newline="")
    if ".csv" in path.suffixes:
        writer = csv.DictWriter(text, ["id", "prompt"], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    elif path.suffix == ".json":
        json.dump(rows, text)
    else:
        # Blank lines are no rows.
        text.write("\n \n".join(json.dumps(row) for row in rows))
    data = text.getvalue().encode("utf-16" if "wide" in path.name else "utf-8-sig")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(
    "name",
    ["in.jsonl", "in.jsonl.gz", "in.csv", "in.csv.gz", "in.json", "wide.jsonl", "in.parquet"],
)
def test_a_batch_goes_on_in_the_middle_of_a_long_input(
    moa: Moa, upstream: Upstream, name: str
) -> None:
    rows = long_rows(190)
    write_as(moa.folder / name, rows)
    start = ["batch", name, "out.jsonl", "--concurrency", "8"]
    assert moa.run(*start, "-n", "150", "--shard", "2/2").code == 0
    assert moa.run(*start, "--shard", "2/2").code == 0
    # The index is there while something is left to do.
    upstream.always("*", lambda request: BUSY if "one of 7:" in str(request.messages) else ANSWER)
    start[2] = "whole.jsonl"
    assert moa.run(*start, "-n", "120").code == 1
    upstream.always("*", ANSWER)
    asked_before = len(upstream.chats())
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    whole = lines_of(moa.folder / "whole.jsonl")
    assert [(row["id"], row["prompt"]) for row in whole] == [
        (row["id"], row["prompt"]) for row in rows
    ]
    assert len(upstream.chats()) - asked_before == 71
    shard = lines_of(moa.folder / "out.jsonl")
    assert [row["prompt"] for row in shard] == [row["prompt"] for row in rows[1::2]]
    # More behind them.
    write_as(moa.folder / name, long_rows(191))
    assert moa.run(*start).code == 0
    assert lines_of(moa.folder / "whole.jsonl")[190]["id"] == "q190"
    assert len(upstream.chats()) - asked_before == 72


def test_lines_hold_no_number_that_json_lacks(moa: Moa) -> None:
    text = (
        '{"prompt": "one", "id": NaN, "a": [NaN, {"b": Infinity}], "c": -Infinity, "d": 1e3}\n'
        '{"prompt": "two", "id": Infinity}\n'
    )
    (moa.folder / "in.jsonl").write_text(text)
    start = ["batch", "in.jsonl", "out.jsonl"]
    assert moa.run(*start).code == 0

    def refused(name: str) -> None:
        raise AssertionError(name)

    lines = (moa.folder / "out.jsonl").read_text("utf-8").splitlines()
    first, second = (json.loads(line, parse_constant=refused) for line in lines)
    assert [first[name] for name in ("id", "a", "c", "d")] == [
        "nan",
        [None, {"b": "inf"}],
        "-inf",
        1000,
    ]
    assert second["id"] == "inf"
    again = moa.run(*start)
    assert again.code == 0, again.err
    assert "2 answers and 0 calls are there" in again.err


def test_half_of_a_surrogate_pair(moa: Moa, upstream: Upstream) -> None:
    """JSON can hold it, UTF-8 cannot."""
    (moa.folder / "in.jsonl").write_text('{"id": "\\ud800", "prompt": "p"}\n')
    ran = moa.run("batch", "in.jsonl", "out.jsonl")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "in.jsonl:1: the id holds half of a surrogate pair" in ran.err
    assert not upstream.chats()
    (moa.folder / "in.jsonl").write_text(
        '{"prompt": "p", "a\\udfff": "b\\ud800", "c": "\U0001f600"}\n'
    )
    for name in ("out.csv", "out.parquet"):
        if name == "out.parquet":
            pytest.importorskip("pyarrow")
        ran = moa.run("batch", "in.jsonl", name)
        assert ran.code == 0, ran.err
        [row] = rows_of(moa.folder / name)
        assert (row["a?"], row["c"]) == ("b?", "\U0001f600")


@pytest.fixture
def folder(moa: Moa) -> Path:
    """A folder of two files of prompts, with what programs leave in such folders."""
    folder = moa.folder / "prompts"
    for name, prompt in (
        ("1.jsonl", "one"),
        ("sub/2.jsonl", "two"),
        (".ipynb_checkpoints/1.jsonl", "hidden"),
        ("_temporary/1.part", "unfinished"),
        ("_SUCCESS", ""),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(folder / name, [{"prompt": prompt}])
    return folder


@pytest.mark.parametrize(
    ("source", "prompts"),
    [
        ("prompts", ["one", "two"]),
        ("prompts/", ["one", "two"]),
        ("~/{folder}/prompts", ["one", "two"]),
        ("prompts/*.jsonl", ["one"]),
        ("prompts/**/*.jsonl", ["one", "two"]),
        ("prompts/sub/[0-9].jsonl", ["two"]),
    ],
)
def test_a_folder_or_a_pattern_of_this_machine(
    moa: Moa, upstream: Upstream, folder: Path, source: str, prompts: list[str]
) -> None:
    source = source.format(folder=moa.folder.name)
    ran = moa.run("batch", source, "out.jsonl")
    assert ran.code == 0, ran.err
    assert asked(upstream) == prompts
    assert [row["prompt"] for row in lines_of(moa.folder / "out.jsonl")] == prompts
    # What was added behind the others is asked, and nothing again.
    write_lines(folder / "sub" / "3.jsonl", [{"prompt": "zz"}])
    added = [] if source == "prompts/*.jsonl" else ["zz"]
    assert moa.run("batch", source, "out.jsonl").code == 0
    assert asked(upstream) == [*prompts, *added]


def test_a_file_whose_name_looks_like_a_pattern(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "in[1].jsonl").write_text('{"prompt": "this"}\n')
    (moa.folder / "in1.jsonl").write_text('{"prompt": "not this"}\n')
    assert moa.run("batch", "in[1].jsonl", "out.jsonl").code == 0
    assert asked(upstream) == ["this"]


@pytest.mark.parametrize("source", ["prompts", "prompts/**/*.json*"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_what_a_batch_writes_among_its_prompts_is_not_asked(
    moa: Moa, upstream: Upstream, folder: Path, source: str, name: str
) -> None:
    upstream.always("agg", lambda request: BUSY if "two" in str(request.messages) else ANSWER)
    assert moa.run("batch", source, f"prompts/{name}").code == 1
    assert (folder / f"{name}.state" / "calls.jsonl").exists()
    upstream.always("agg", ANSWER)
    ran = moa.run("batch", source, f"prompts/{name}")
    assert ran.code == 0, ran.err
    assert set(asked(upstream)) == {"one", "two"}


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        ("empty", 1, "empty: there are no such files"),
        ("empty/*.jsonl", 1, "empty/*.jsonl: there are no such files"),
        ("mixed", 2, "mixed: holds files of different formats: csv, jsonl"),
        ("tables", 2, "tables/2.csv: is a table without a column `prompt`; there are `text`"),
        ("twice/*", 1, "twice/2.jsonl:2: two lines have the id x"),
        ("damaged", 1, "damaged/2.jsonl:1: is not JSON"),
    ],
)
def test_what_is_wrong_in_a_folder_is_told_by_file(
    moa: Moa, upstream: Upstream, source: str, code: int, told: str
) -> None:
    (moa.folder / "empty").mkdir()
    for name, text in {
        "mixed/1.jsonl": '{"prompt": "a"}\n',
        "mixed/2.csv": "prompt\na\n",
        "tables/1.csv": "prompt\na\n",
        "tables/2.csv": "text\na\n",
        "twice/1.jsonl": '{"id": "x", "prompt": "a"}\n',
        "twice/2.jsonl": '{"id": "y", "prompt": "a"}\n{"id": "x", "prompt": "a"}\n',
        "damaged/1.jsonl": '{"prompt": "a"}\n',
        "damaged/2.jsonl": '{"prompt"\n',
    }.items():
        path = moa.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    ran = moa.run("batch", source, "out.jsonl")
    assert (ran.code, upstream.chats()) == (code, [])
    assert told in ran.err
