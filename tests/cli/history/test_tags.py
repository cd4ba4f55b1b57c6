"""Conversations get titles and tags of the user's own, are found by them, and leave by them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.kept import keep


@pytest.fixture
def kept(moa: Moa) -> Moa:
    keep(moa, ("what do zebras wear?", "stripes"))
    keep(moa, ("and horses?", "saddles"), profile="other")
    return moa


def ids(moa: Moa, *options: str) -> list[str]:
    """The ids that are listed, the first conversation first."""
    values = json.loads(moa.run("history", "list", "--json", *options).out)
    return [value["id"] for value in reversed(values)]


def exported(moa: Moa, *options: str) -> list[dict[str, Any]]:
    out = moa.run("history", "export", "--format", "json", *options)
    assert out.code == 0, out.err
    return list(json.loads(out.out)["conversations"])


def test_a_conversation_gets_another_title(kept: Moa) -> None:
    zebras, _ = ids(kept)
    ran = kept.run("history", "rename", zebras[:6], "Stripes ", " and\nmore")
    assert (ran.code, ran.out) == (0, b"")
    assert ran.err == f"moa: renamed {zebras}: Stripes and more\n"
    assert kept.run("history", "list").text.rstrip().endswith("  Stripes and more")
    for title, message in (("  ", "TITLE is empty"), ("x" * 201, "at most 200")):
        refused = kept.run("history", "rename", zebras, title)
        assert refused.code == 2
        assert message in refused.err
    missing = kept.run("history", "rename", "zzzz", "x")
    assert (missing.code, missing.err.count("\n")) == (1, 1)


def test_tags_are_given_shown_and_taken_away(kept: Moa) -> None:
    zebras, horses = ids(kept)
    told = kept.run("history", "tag", zebras[:6], "Animals", "#stripes", "größe")
    assert told.err == f"moa: {zebras} is tagged animals, größe, stripes\n"
    assert kept.run("history", "tag", zebras).text == "animals\ngröße\nstripes\n"
    assert (ids(kept, "--tag", "ANIMALS"), ids(kept, "--tag", "none")) == ([zebras], [])
    assert kept.run("history", "list", "--tag", "animals").text.endswith(
        "what do zebras wear? #animals #größe #stripes\n"
    )
    shown = json.loads(kept.run("history", "show", zebras, "--json").out)
    assert shown["tags"] == ["animals", "größe", "stripes"]
    kept.run("history", "tag", horses, "animals")
    assert ids(kept, "--tag", "animals", "-n", "1") == [horses]
    left = kept.run("history", "tag", zebras, "--remove", "animals", "stripes", "nosuch")
    assert left.err == f"moa: {zebras} is tagged größe\n"
    assert kept.run("history", "tag", zebras, "--remove", "größe").err.endswith("has no tags\n")


@pytest.mark.parametrize("tag", ["two words", "a,b", "x" * 51, "\x1b[31m", "#", "\u200b"])
def test_what_is_no_tag_is_refused(kept: Moa, tag: str) -> None:
    zebras, _ = ids(kept)
    for command in (("tag", zebras, tag), ("list", "--tag", tag), ("export", "--tag", tag)):
        ran = kept.run("history", *command)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "is not a tag" in ran.err
    assert kept.run("history", "tag", zebras, "--remove").code == 2


def test_tags_go_with_a_conversation_and_end_with_it(kept: Moa) -> None:
    zebras, horses = ids(kept)
    kept.run("history", "tag", zebras, "animals", "secretword")
    kept.run("history", "export", "--all", "-o", "all.json")
    values = json.loads((kept.folder / "all.json").read_bytes())
    assert values["version"] == 2
    assert [conversation.get("tags") for conversation in values["conversations"]] == [
        ["animals", "secretword"],
        None,
    ]
    there = {"MOA_DATA_DIR": str(kept.folder / "elsewhere")}
    assert kept.run("history", "import", "all.json", "--tag", "new", env=there).code == 0
    again = kept.run("history", "export", "--tag", "animals", "--format", "json", env=there)
    assert json.loads(again.out)["conversations"][0]["tags"] == ["animals", "new", "secretword"]
    assert "#animals" in kept.run("history", "export", zebras).text.splitlines()[2].replace(
        "\\", ""
    )
    assert "#animals" in kept.run("history", "export", zebras, "--format", "html").text
    # Without tags, older releases read the file too.
    out = json.loads(kept.run("history", "export", horses, "--format", "json").out)
    assert (out["version"], "tags" in out["conversations"][0]) == (1, False)
    kept.run("history", "delete", zebras, "--yes")
    file = kept.run("history", "path").text.strip()
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM tags").fetchone()[0] == 0
    connection.close()
    with open(file, "rb") as content:
        assert b"secretword" not in content.read()


@pytest.mark.parametrize(
    ("tags", "message"),
    [(7, "tags is not a list"), ([1], "a tag is not text"), (["a b"], "'a b' is not a tag")],
)
def test_wrong_tags_in_a_file_are_refused(kept: Moa, tags: Any, message: str) -> None:
    kept.run("history", "export", "--all", "-o", "all.json")
    values = json.loads((kept.folder / "all.json").read_bytes())
    identity = values["conversations"][0]["id"]
    values["conversations"][0]["tags"] = tags
    (kept.folder / "wrong.json").write_text(json.dumps(values))
    ran = kept.run("history", "import", "wrong.json")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"wrong.json: conversation {identity}: {message}" in ran.err


def test_a_renamed_and_tagged_conversation_is_still_the_one_in_the_file(kept: Moa) -> None:
    zebras, horses = ids(kept)
    kept.run("history", "export", "--all", "-o", "all.json")
    kept.run("history", "rename", zebras, "other")
    kept.run("history", "tag", zebras, "mine")
    told = kept.run("history", "import", "all.json").err.splitlines()
    assert told == [
        f"moa: skipped 2 that exist already: {zebras}, {horses}",
        "moa: imported 0 conversations",
    ]


def test_tags_are_recovered_from_a_damaged_file(kept: Moa) -> None:
    zebras, _ = ids(kept)
    kept.run("history", "tag", zebras, "animals")
    file = Path(kept.run("history", "path").text.strip())
    copy = kept.folder / "copy.db"
    assert kept.run("history", "backup", "copy.db").code == 0
    kept.run("history", "delete", zebras, "--yes")
    assert kept.run("history", "recover", "copy.db").code == 0
    assert ids(kept, "--tag", "animals") == [zebras]
    assert file.exists()
    assert copy.exists()


def test_what_matches_all_filters_is_exported(kept: Moa) -> None:
    zebras, horses = ids(kept)
    kept.run("history", "tag", zebras, "animals")
    assert [conversation["id"] for conversation in exported(kept, "--search", "wear zebras")] == [
        zebras
    ]
    assert [conversation["id"] for conversation in exported(kept, "--since", "1d")] == [
        zebras,
        horses,
    ]
    assert [conversation["id"] for conversation in exported(kept, "--profile", "other")] == [horses]
    both = exported(kept, "--tag", "animals", "--search", "stripes", "--since", "1d")
    assert [hit["id"] for hit in both] == [zebras]
    assert "# and horses?" in kept.run("history", "export", "--search", "saddles").text
    for options in (("--search", "giraffes"), ("--tag", "nosuch"), ("--since", "0h")):
        none = kept.run("history", "export", *options, "-o", "x.json")
        assert (none.code, none.err) == (1, "moa: no conversation matches\n")
        assert not (kept.folder / "x.json").exists()
    assert kept.run("history", "export", "--search", " ").code == 2
    for wrong in ((zebras, "--search", "x"), ("--all", "--tag", "x")):
        assert kept.run("history", "export", *wrong).code == 2


def test_a_chat_tags_its_conversation(moa: Moa) -> None:
    lines = (
        b"/tag x\nhi\n/tag Work #home\n/tag\n/tag --remove work\n/tag --remove\n/tag a,b\n/fork\n"
    )
    ran = moa.run("chat", stdin=lines)
    assert "tags: home, work\n" * 2 + "tags: home\n" in ran.err
    assert "/tag --remove needs tags" in ran.err
    assert "'a,b' is not a tag" in ran.err
    assert len(ids(moa, "--tag", "home")) == 2
    assert ids(moa, "--tag", "work") == []
