"""Conversations leave as JSON, Markdown or a web page, and come back, from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def kept(moa: Moa, upstream: Upstream) -> Moa:
    moa.profile("lab", "a", "b")
    upstream.always("agg", Reply(text="stripes, **mostly**"))
    assert moa.run("ask", "what do zebras wear?").code == 0
    assert moa.run("ask", "-c", "and horses?").code == 0
    assert moa.run("ask", "something else").code == 0
    return moa


def ids(moa: Moa) -> list[str]:
    """All conversations, the first one first."""
    return [line.split()[0] for line in reversed(moa.run("history", "list").text.splitlines())]


def elsewhere(moa: Moa) -> dict[str, str]:
    """The environment of another store."""
    return {"MOA_DATA_DIR": str(moa.folder / "elsewhere")}


def test_an_export_imported_elsewhere_is_exported_the_same(kept: Moa) -> None:
    out = kept.run("history", "export", "--all", "-o", "kept.json")
    assert (out.code, out.out, out.err) == (0, b"", "")
    file = kept.folder / "kept.json"
    taken = kept.run("history", "import", "kept.json", env=elsewhere(kept))
    assert (taken.code, taken.out, taken.err) == (0, b"", "moa: imported 2 conversations\n")
    again = kept.run("history", "export", "--all", "--format", "json", env=elsewhere(kept))
    assert again.out == file.read_bytes()
    assert kept.run("ask", "-c", "more?", env=elsewhere(kept)).code == 0


def test_an_export_can_be_imported_through_a_pipe(kept: Moa) -> None:
    first, _ = ids(kept)
    out = kept.run("history", "export", first[:4], "--format", "json").out
    taken = kept.run("history", "import", "-", stdin=out, env=elsewhere(kept))
    assert (taken.code, taken.err) == (0, "moa: imported 1 conversation\n")
    listed = kept.run("history", "list", env=elsewhere(kept)).text
    assert (listed.split()[0], listed.count("\n")) == (first, 1)
    broken = kept.run("history", "import", "-", stdin=b"nope")
    assert broken.err.startswith("moa: standard input: not JSON")


def test_what_is_there_is_skipped_and_what_differs_gets_another_id(kept: Moa) -> None:
    first, second = ids(kept)
    kept.run("history", "export", "--all", "-o", "kept.json")
    same = kept.run("history", "import", "kept.json")
    assert same.err == (
        f"moa: skipped 2 that exist already: {first}, {second}\nmoa: imported 0 conversations\n"
    )
    assert kept.run("ask", "--cid", second, "more?").code == 0
    mixed = kept.run("history", "import", "kept.json")
    assert mixed.err.startswith(f"moa: {second} exists with other content: imported as ")
    assert mixed.err.endswith(
        f"moa: skipped 1 that exist already: {first}\nmoa: imported 1 conversation\n"
    )
    assert len(ids(kept)) == 3


def test_a_broken_file_is_told_in_one_line_and_nothing_is_taken(kept: Moa) -> None:
    kept.run("history", "export", "--all", "-o", "kept.json")
    values = json.loads((kept.folder / "kept.json").read_bytes())
    last = values["conversations"][1]
    last["turns"][0]["reply"] = 5
    (kept.folder / "wrong.json").write_text(json.dumps(values))
    ran = kept.run("history", "import", "wrong.json", env=elsewhere(kept))
    assert (ran.code, ran.text) == (1, "")
    assert ran.err == f"moa: wrong.json: conversation {last['id']}: turn 1: reply is not text\n"
    assert kept.run("history", "list", env=elsewhere(kept)).text == ""
    missing = kept.run("history", "import", "nosuch.json")
    assert (missing.code, missing.err) == (1, "moa: nosuch.json: No such file or directory\n")


def test_markdown_is_the_default_and_goes_to_standard_output(kept: Moa) -> None:
    first, _ = ids(kept)
    text = kept.run("history", "export", first).text
    assert text.startswith("# what do zebras wear?\n\n20")
    assert "\n> what do zebras wear?\n\nstripes, **mostly**\n\n*`lab:agg" in text
    assert "\n---\n\n> and horses?\n" in text
    assert "<details>" not in text
    folded = kept.run("history", "export", first, "--proposals").text
    assert "<details><summary>lab:a (round 1): " in folded


def test_the_name_of_the_file_tells_the_format_and_an_option_comes_before_it(kept: Moa) -> None:
    starts = {"x.md": b"# ", "x.json": b"{\n", "x.HTML": b"<!doctype html>", "x": b"# "}
    for name, start in starts.items():
        assert kept.run("history", "export", "--all", "-o", name).code == 0
        assert (kept.folder / name).read_bytes().startswith(start)
    kept.run("history", "export", "--all", "--format", "md", "-o", "y.json")
    assert (kept.folder / "y.json").read_bytes().startswith(b"# ")
    assert kept.run("history", "export", "--all", "-o", "-").text.startswith("# ")
    assert kept.run("history", "export", "--all", "--format", "pdf").code == 2


@pytest.mark.parametrize("name", ["x.pdf", "x.DOCX", "x.csv", "x.jsonl"])
def test_an_ending_of_another_format_is_refused_by_name(kept: Moa, name: str) -> None:
    refused = kept.run("history", "export", "--all", "-o", name)
    assert refused.code == 2
    assert refused.err == (
        f"moa: {name}: conversations are not written as {name[1:].lower()} (.md is Markdown,"
        " .html a web page, .json can be imported again)\n"
    )
    assert list(kept.folder.iterdir()) == []
    assert kept.run("history", "export", "--all", "-o", name, "--format", "md").code == 0


@pytest.mark.parametrize("name", ["x.txt", "of 29.11.2026", "no. 5", ".hidden"])
def test_other_names_are_those_of_markdown(kept: Moa, name: str) -> None:
    assert kept.run("history", "export", "--all", "-o", name).code == 0
    assert (kept.folder / name).read_text("utf-8").startswith("# ")


def test_a_page_holds_the_conversation_with_its_proposals_folded(kept: Moa) -> None:
    first, _ = ids(kept)
    text = kept.run("history", "export", first, "--format", "html").text
    assert "<title>what do zebras wear?</title>" in text
    assert "<p>stripes, <strong>mostly</strong></p>" in text
    assert "<summary>2 proposals</summary>" in text


def test_a_file_is_private_and_not_overwritten_unasked(kept: Moa) -> None:
    file = kept.folder / "kept.md"
    file.write_text("mine")
    refused = kept.run("history", "export", "--all", "-o", "kept.md")
    assert (refused.code, file.read_text()) == (2, "mine")
    assert refused.err == f"moa: {file}: already exists (--force overwrites it)\n"
    assert kept.run("history", "export", "--all", "-o", "kept.md", "--force").code == 0
    assert file.read_text().startswith("# ")
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in kept.folder.iterdir()) == ["kept.md"]


def test_a_link_is_written_through_and_what_is_no_file_is_left_alone(kept: Moa) -> None:
    target = kept.folder / "real.md"
    link = kept.folder / "link.md"
    link.symlink_to(target)
    assert kept.run("history", "export", "--all", "-o", "link.md").code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("# ")
    os.mkfifo(kept.folder / "pipe")
    for name in ("pipe", "."):
        refused = kept.run("history", "export", "--all", "-o", name, "--force")
        assert refused.code == 2
        assert refused.err.endswith("already exists\n")


def test_a_folder_that_is_not_there_is_told_by_name(kept: Moa) -> None:
    ran = kept.run("history", "export", "--all", "-o", "nosuch/kept.md")
    file = Path(kept.folder, "nosuch", "kept.md")
    assert (ran.code, ran.err) == (
        1,
        f"moa: {file}: cannot be written: No such file or directory\n",
    )


@pytest.mark.parametrize("arguments", [[], ["2345", "--all"]], ids=["none", "both"])
def test_it_must_be_told_what_to_export(moa: Moa, arguments: list[str]) -> None:
    ran = moa.run("history", "export", *arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert (
        ran.err == "moa: select what to export in one way only"
        " (ids, or --all, or filters such as --search)\n"
    )


def test_an_unknown_id_is_told_and_no_file_is_made(kept: Moa) -> None:
    ran = kept.run("history", "export", "zzzz", "-o", "x.md")
    assert (ran.code, ran.out) == (1, b"")
    assert "there is no conversation `zzzz`" in ran.err
    assert not (kept.folder / "x.md").exists()


def test_nothing_is_an_empty_archive_but_no_document(moa: Moa) -> None:
    out = moa.run("history", "export", "--all", "--format", "json")
    assert (out.code, json.loads(out.out)["conversations"]) == (0, [])
    refused = moa.run("history", "export", "--all", "-o", "x.html")
    assert (refused.code, refused.err) == (1, "moa: there are no conversations\n")
    assert list(moa.folder.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(kept: Moa) -> None:
    with kept.start("history", "export", "--all", "--format", "html") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
