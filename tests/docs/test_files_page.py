"""docs/reference/files.md names every file that `moa` writes: a session writes as many as it can,
and each must match one of the page's patterns, with the rights that the page tells."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from moa_cli.config.schema import Config
from moa_cli.core.conversation import Usage
from moa_cli.store.comparisons import ComparedTexts, Comparison, Contender
from tests.support.bench.judge import JUDGE, TEMPLATE
from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa
from tests.support.kept import open_store
from tests.support.talk import at_prompt
from tests.support.upstream import Reply, Upstream

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "files.md").read_text("utf-8")
# Other code in those cells are options and commands.
_TOP = ("config", "data", "state", "cache", "work")
STUCK = Reply(text="never to its end", stall_after=2)


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command, with the upstream as provider `lab`."""
    upstream.always("*", ANSWER)
    upstream.always("judge", JUDGE)
    upstream.always("arena", Reply(text="[[A>B]]"))
    moa = Moa(tmp_path, upstream.url)
    write_lines(moa.folder / "in.jsonl", [{"prompt": f"thing {n}"} for n in (1, 2)])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    moa.environment["TMPDIR"] = str(scratch)
    return moa


def patterns() -> list[re.Pattern[str]]:
    """What stands in code in the first column of the page's tables, as paths below a home."""
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE, re.M)
    found = []
    for name in re.findall(r"`([^`]+)`", " ".join(cells)):
        for word, place in {
            **{kind.upper(): kind for kind in ("config", "data", "state", "cache")},
            "OUT": "work/out<format>",
            "RUN": "work/runs/[^/]+",
            "FILE": "work/talk.html",
        }.items():
            name = re.sub(rf"^{word}\b", place, name)
        if name.partition("/")[0] not in _TOP:
            continue
        pattern = name.replace(".", r"\.").replace("<format>", r"\.(?:jsonl|csv)")
        found.append(re.compile(re.sub(r"<[^>]+>", "[^/]+", pattern)))
    return found


def written(home: Path) -> list[str]:
    """All files below it."""
    paths = (path for path in home.rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(home)) for path in paths)


def test_the_page_names_each_file_that_a_session_writes(moa: Moa, upstream: Upstream) -> None:
    home = Path(moa.environment["HOME"])
    reference(moa)
    # The settings are written again.
    given = {name for name in written(home) if name != "config/config.toml"}
    for command in (
        ("config", "set", "retries", "1"),
        ("profile", "new", "mine", "-m", "lab:a", "-a", "lab:b"),
        ("ask", "why?", "--save-profile", "kept"),
        ("history", "export", "--all", "--format", "json", "-o", "talk.html"),
        ("history", "import", "talk.html"),
        ("history", "export", "--all", "-o", "talk.html", "--force"),
        ("history", "backup", "talk.html", "--force"),
        ("history", "clean"),
        ("batch", "in.jsonl", "out.jsonl"),
        ("batch", "in.jsonl", "out.csv"),
        ("bench", "run", "in.jsonl", "-o", "runs/mine", "-y", "-p", "mine"),
        ("bench", "judge", "runs/mine", "--judge", "lab:judge", "-y", "--reference", "given.json"),
    ):
        ran = moa.run(*command)
        assert ran.code == 0, (command, ran.err)
    keep_choice(home / "data" / "conversations.db")
    assert moa.run("compare", "judge", "--judge", "lab:arena", "-y").code == 0
    # A provider that refuses what is too much for it.
    upstream.at_once = 1
    held = Reply(text="a proposal", after=lambda: len(upstream.refused) >= 2, pause=0.3)
    # Any of them may come first.
    for name in "abc":
        upstream.enqueue(name, held)
    assert moa.run("ask", "why?", "-m", "lab:a,lab:b,lab:c").code == 0
    upstream.at_once = None
    # The first start of somebody who has set nothing up.
    (home / "fresh").mkdir()
    with moa.terminal("chat", "-p", "local", env={"MOA_CONFIG_DIR": str(home / "fresh")}) as first:
        at_prompt(first)
        first.send("\x04")
        first.wait()
    # A chat, and a second one that is killed while a prompt is in the editor.
    editor = home / "work" / "editor"
    editor.write_text('#!/bin/sh\ncp "$1" "$1~"\ncd ~/work\ntouch began\nsleep 100\n')
    editor.chmod(0o700)
    given |= {"work/editor", "work/began"}
    with moa.terminal("chat", env={"VISUAL": str(editor)}) as chat:
        at_prompt(chat)
        chat.send("hello\r")
        chat.wait_for("calls, ")
        at_prompt(chat)
        chat.send("/edit hello\r")
        chat.wait_for((home / "work" / "began").exists)
        chat.process.kill()
        chat.process.wait()
    # A batch and a turn that are killed: a journal, and the side files of the database.
    upstream.always("agg", STUCK)
    kept = set(written(home))
    (moa.folder / "out.jsonl").unlink()
    calls = len(upstream.chats("agg"))
    with moa.start("batch", "in.jsonl", "out.jsonl"):
        upstream.wait_for(lambda: len(upstream.chats("agg")) > calls)
        upstream.wait_for((moa.folder / "out.jsonl.state" / "calls.jsonl").exists)
    with moa.start("ask", "why?"):
        upstream.wait_for(lambda: len(upstream.chats("agg")) > calls + 1)
    damaged = home / "data" / "conversations.db"
    kept |= set(written(home))
    assert {"data/conversations.db-wal", "data/conversations.db-shm"} <= kept
    damaged.write_bytes(b"no database" * 1000)
    assert moa.run("history", "list").code == 0
    made = [name for name in sorted(kept | set(written(home))) if name not in given]
    known = patterns()
    unknown = [name for name in made if not any(point.fullmatch(name) for point in known)]
    assert unknown == []
    open_to_all = [
        name
        for name in made
        if (home / name).exists() and stat.S_IMODE((home / name).stat().st_mode) & 0o077
    ]
    assert open_to_all == []
    # Nor does the page name what is never written; the rest needs a network, or a kill in a moment.
    never = {point.pattern for point in known if not any(point.fullmatch(name) for name in made)}
    assert never == {
        pattern
        for pattern in never
        if re.search(r"/\\.|models/|cache/bench|damaged|pending|begun", pattern)
    }


def keep_choice(file: Path) -> None:
    """A choice whose words the user allowed to keep."""
    arms = [Contender(arm, "mine", "5e77", Usage(calls=1), 1.0) for arm in ("mixture", "single")]
    store = open_store(file)
    texts = ComparedTexts("why?", ("so", "for that"))
    store.comparisons.add(Comparison(1e9, tuple(arms), 0, texts=texts))
    store.close()


def reference(moa: Moa) -> None:
    """What a judge needs: its prompt, and other answers to compare with."""
    folder = moa.folder / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    (folder / "judge_prompt_alpaca_eval_clf.txt").write_text(TEMPLATE, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(folder.parent)
    rows = [{"instruction": f"thing {n}", "output": "so", "generator": "it"} for n in (1, 2)]
    (moa.folder / "given.json").write_text(json.dumps(rows), "utf-8")


def test_the_page_names_the_settings_and_folders_of_the_program() -> None:
    for name in ("MOA_CONFIG_DIR", "MOA_DATA_DIR", "MOA_STATE_DIR", "MOA_CACHE_DIR", "MOA_SAVE"):
        assert f"`{name}" in PAGE
    assert f"{Config.prompt_history:,} (`prompt_history`)" in PAGE
