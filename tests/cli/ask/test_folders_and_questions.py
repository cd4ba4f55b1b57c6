"""`moa ask -f`: folders, patterns and several files; what is asked before files are sent, and what
is never read."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.attached import PNG, images
from tests.support.command import Moa
from tests.support.upstream import Upstream

KEY_FILE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"


def asked(upstream: Upstream) -> str:
    """The prompt as the first proposer was last sent it."""
    return str(upstream.chats("a")[-1].messages[-1]["content"])


def written(folder: Path, files: dict[str, str]) -> None:
    """Write files with these texts."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def test_files_that_follow_a_file_are_attached(moa: Moa, upstream: Upstream) -> None:
    written(moa.folder, {"a.py": "first", "b.py": "second"})
    ran = moa.run("ask", "-f", "a.py", "b.py", "which?")
    assert ran.code == 0
    assert asked(upstream) == "which?\n\na.py:\n```\nfirst\n```\n\nb.py:\n```\nsecond\n```"
    assert "moa: attached: a.py, b.py (about 16 tokens)" in ran.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        # The question comes first, and what follows `--` is one.
        (("explain", "b.py", "-f", "a.py"), "explain b.py"),
        (("-f", "a.py", "--", "b.py"), "b.py"),
        # A bare word is the question even where there is such a folder.
        (("-f", "a.py", "tests"), "tests"),
        (("-f", "a.py", "why *?"), "why *?"),
        (("-f", "a.py", "x" * 5000), "x" * 5000),
    ],
)
def test_words_of_the_question_stay_words(
    moa: Moa, upstream: Upstream, arguments: tuple[str, ...], words: str
) -> None:
    written(moa.folder, {"a.py": "first", "b.py": "second", "tests/c.py": "third"})
    assert moa.run("ask", *arguments).code == 0
    assert asked(upstream) == f"{words}\n\na.py:\n```\nfirst\n```"


@pytest.mark.parametrize("pattern", ["*.{py,md}", "./*.py", "**/a.py", "[ab].py"])
def test_a_pattern_names_files(moa: Moa, upstream: Upstream, pattern: str) -> None:
    written(moa.folder, {"a.py": "first", "c.txt": "third", ".d.py": "hidden"})
    assert moa.run("ask", "what?", "-f", pattern).code == 0
    assert asked(upstream) == "what?\n\na.py:\n```\nfirst\n```"


def test_a_file_may_be_named_like_a_pattern(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "a[1].txt").write_text("first", "utf-8")
    assert moa.run("ask", "what?", "-f", "a[1].txt").code == 0
    assert asked(upstream) == "what?\n\na[1].txt:\n```\nfirst\n```"


def test_a_pattern_that_fits_nothing_is_refused(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "what?", "-f", "*.rs")
    assert (ran.code, ran.err) == (2, "moa: *.rs: no file has such a name\n")
    assert upstream.requests == []


def test_a_folder_gives_its_texts_and_says_what_it_leaves_out(moa: Moa, upstream: Upstream) -> None:
    src = moa.folder / "src"
    written(
        src, {"a.py": "first", "deep/b.py": "second", ".hidden": "no", "node_modules/x.js": "no"}
    )
    (src / "data.bin").write_bytes(b"\0\1")
    (src / "loop").symlink_to(src)
    (src / "broken").symlink_to("nowhere")
    ran = moa.run("ask", "what?", "-f", "src")
    assert ran.code == 0
    prompt = "what?\n\nsrc/a.py:\n```\nfirst\n```\n\nsrc/deep/b.py:\n```\nsecond\n```"
    assert asked(upstream) == prompt
    told = "moa: src: left out 1 hidden entry; 1 file that cannot be sent (data.bin)"
    assert told in ran.err.splitlines()


def test_a_folder_in_git_gives_what_is_not_ignored(moa: Moa, upstream: Upstream) -> None:
    written(moa.folder, {"src/a.py": "first", "src/build/b.py": "no"})
    (moa.folder / ".gitignore").write_text("build/\n")
    subprocess.run(["git", "init", "-q"], cwd=moa.folder, check=True)
    assert moa.run("ask", "what?", "-f", "src").code == 0
    assert asked(upstream) == "what?\n\nsrc/a.py:\n```\nfirst\n```"
    # Named by itself, an ignored folder is what the user means.
    assert moa.run("ask", "what?", "-f", "src/build").code == 0
    assert asked(upstream) == "what?\n\nsrc/build/b.py:\n```\nno\n```"


def test_a_repository_cannot_have_its_programs_run(moa: Moa, upstream: Upstream) -> None:
    written(moa.folder, {"src/a.py": "first"})
    subprocess.run(["git", "init", "-q"], cwd=moa.folder, check=True)
    program = moa.folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {moa.folder}/ran\n")
    program.chmod(0o700)
    setting = ["git", "config", "core.fsmonitor", str(program)]
    subprocess.run(setting, cwd=moa.folder, check=True)
    assert moa.run("ask", "what?", "-f", "src").code == 0
    assert not (moa.folder / "ran").exists()


def test_a_repository_that_lacks_objects_cannot_have_them_fetched(
    moa: Moa, upstream: Upstream
) -> None:
    written(moa.folder, {"src/a.py": "first", "other/b.py": "second"})

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a", *words]
        done = subprocess.run(command, cwd=moa.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "c")
    # The index has one entry for the other folder. To list its files, Git needs this object.
    git("sparse-checkout", "set", "--cone", "--sparse-index", "src")
    missing = git("rev-parse", "HEAD:other")
    (moa.folder / ".git" / "objects" / missing[:2] / missing[2:]).unlink()
    for name, value in (
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", str(moa.folder / "nowhere")),
        ("remote.origin.uploadpack", f"touch {moa.folder}/ran; false"),
        ("core.repositoryFormatVersion", "1"),
    ):
        git("config", name, value)
    moa.run("ask", "what?", "-f", ".")
    assert not (moa.folder / "ran").exists()


def test_images_of_a_folder_go_along_only_if_some_model_sees(moa: Moa, upstream: Upstream) -> None:
    written(moa.folder, {"src/a.py": "first"})
    (moa.folder / "src" / "icon.png").write_bytes(PNG)
    assert moa.run("ask", "what?", "-f", "src").code == 0
    assert images(upstream.chats("a")[-1].messages[-1])
    moa.profile("blind", "gpt-3.5-turbo", aggregator="deepseek-chat")
    ran = moa.run("ask", "what?", "-f", "src", "-p", "blind")
    assert ran.code == 0
    assert "left out 1 image that no model sees (icon.png)" in ran.err


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        (".env", "KEY=1", "settings with keys"),
        ("prod.env", "KEY=1", "settings with keys"),
        (".netrc", "x", "passwords or tokens"),
        ("credentials.json", "{}", "passwords or tokens"),
        ("id_rsa", "x", "a private key"),
        ("server.pem", KEY_FILE, "a private key"),
        ("notes.txt", f"see\n{KEY_FILE}", "a private key"),
        ("notes.txt", "AKIA" + "A1B2C3D4" * 2, "passwords or tokens"),
        ("notes.txt", "OPENAI_API_KEY=sk-" + "a1B2" * 12, "passwords or tokens"),
        ("notes.txt", "GROQ_API_KEY=gsk_" + "a1B2" * 13, "passwords or tokens"),
        ("notes.txt", "'hf_" + "aBcD" * 8 + "Ef'", "passwords or tokens"),
        ("api_keys.txt", "one", "passwords or tokens"),
        ("my-apikey.json", "{}", "passwords or tokens"),
        ("kubeconfig", "one", "passwords or tokens"),
    ],
)
def test_a_file_that_seems_secret_is_refused_where_nobody_can_be_asked(
    moa: Moa, upstream: Upstream, name: str, content: str, kind: str
) -> None:
    (moa.folder / name).write_text(content, "utf-8")
    ran = moa.run("ask", "what?", "-f", name)
    told = f"moa: {name} seems to hold {kind} (--allow-secrets sends it)\n"
    assert (ran.code, ran.err) == (2, told)
    assert upstream.requests == []
    assert moa.run("ask", "what?", "-f", name, "--allow-secrets").code == 0
    assert content.strip() in asked(upstream)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env.example", "KEY="),
        ("id_rsa.pub", "ssh-rsa AAAA"),
        ("secrets.py", "import secrets"),
        ("tokenizer.json", "{}"),
        ("api_keys.py", "class ApiKeys: ..."),
        ("notes.txt", "hf_hub_download, sk-learn, gsk_x, and task-0123456789"),
        ("cert.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n"),
        ("keys.md", "A key begins with `-----BEGIN PRIVATE KEY-----`."),
        ("aws.md", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_what_only_resembles_a_secret_is_sent(
    moa: Moa, upstream: Upstream, name: str, content: str
) -> None:
    (moa.folder / name).write_text(content, "utf-8")
    assert moa.run("ask", "what?", "-f", name).code == 0
    assert content in asked(upstream)


def test_a_link_with_a_harmless_name_does_not_hide_a_secret(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / ".env").write_text("KEY=1")
    (moa.folder / "notes.txt").symlink_to(".env")
    assert "notes.txt seems to hold" in moa.run("ask", "what?", "-f", "notes.txt").err
    assert upstream.requests == []


def test_a_secret_in_a_folder_is_left_out_and_told(moa: Moa, upstream: Upstream) -> None:
    written(moa.folder / "src", {"a.py": "first", "id_rsa": "x"})
    ran = moa.run("ask", "what?", "-f", "src")
    assert ran.code == 0
    assert "moa: left out: src/id_rsa seems to hold a private key" in ran.err
    assert "id_rsa" not in asked(upstream)


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
def test_at_a_terminal_a_secret_is_asked_about(
    moa: Moa, upstream: Upstream, answer: str, code: int
) -> None:
    (moa.folder / ".env").write_text("KEY=1")
    with moa.terminal("ask", "what?", "-f", ".env") as terminal:
        terminal.wait_for(".env seems to hold settings with keys: send it to the models?")
        terminal.send(f"{answer}\r")
        assert terminal.wait() == code
    assert len(upstream.chats("a")) == (answer == "y")


PRICES = {"prompt": 1.0, "completion": 2.0}


@pytest.fixture
def large(moa: Moa, upstream: Upstream) -> Moa:
    """A machine on which a question is asked from 1,000 tokens on, with files of 2,000."""
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        confirm_tokens=1000,
        prices={f"lab:{model}": PRICES for model in ("a", "b", "c", "agg")},
    )
    written(moa.folder, {"src/a.txt": "word " * 1200, "src/b.txt": "word " * 1200})
    return moa


def test_a_large_folder_is_refused_where_nobody_can_be_asked(
    large: Moa, upstream: Upstream
) -> None:
    ran = large.run("ask", "what?", "-f", "src")
    assert ran.code == 2
    assert (
        "about 2,178 tokens, about $0.0022 a proposer (standard input is not a terminal;" in ran.err
    )
    assert upstream.requests == []
    assert large.run("ask", "what?", "-f", "src", "--yes").code == 0


def test_a_large_file_that_is_named_is_sent_and_told(large: Moa, upstream: Upstream) -> None:
    ran = large.run("ask", "what?", "-f", "src/a.txt")
    assert ran.code == 0
    assert "moa: about 1,089 tokens, about $0.0011 a proposer" in ran.err.splitlines()
    assert "proposer" not in large.run("ask", "-q", "what?", "-f", "src/a.txt").err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130), ("", 130)])
def test_at_a_terminal_the_size_is_asked_about(
    large: Moa, upstream: Upstream, answer: str, code: int
) -> None:
    with large.terminal("ask", "what?", "-f", "src") as terminal:
        terminal.wait_for("about 2,178 tokens, about $0.0022 a proposer: send? [y/N]")
        terminal.send(f"{answer}\r")
        assert terminal.wait() == code
    assert len(upstream.chats("a")) == (answer == "y")


def test_nothing_is_asked_where_nothing_is_sent_or_the_setting_says_never(
    large: Moa, upstream: Upstream
) -> None:
    assert large.run("ask", "--estimate", "what?", "-f", "src").code == 0
    table = large.settings() | {"confirm_tokens": False}
    large.configure(**table)
    assert large.run("ask", "what?", "-f", "src").code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/dev/zero", "/dev/zero: is a device or a socket, not a file"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
        ("locked", "locked: cannot be read: Permission denied"),
        ("huge.log", "huge.log: has 50,000,001 bytes; a text file may have 50,000,000"),
        ("a\nb", "a b: cannot be read: No such file or directory"),
        ("x" * 300, ": cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    moa: Moa, upstream: Upstream, name: str, said: str
) -> None:
    if name == "locked" and os.geteuid() == 0:
        pytest.skip("root reads every file")
    (moa.folder / "loop").symlink_to("loop")
    (moa.folder / "locked").touch(mode=0)
    with (moa.folder / "huge.log").open("wb") as file:
        file.truncate(50_000_001)
    ran = moa.run("ask", "what?", "-f", name)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert said in ran.err
    assert upstream.requests == []


def test_a_pipe_is_read_and_one_that_nobody_writes_to_is_told_of(
    moa: Moa, upstream: Upstream
) -> None:
    pipe = moa.folder / "pipe"
    os.mkfifo(pipe)
    with moa.terminal("ask", "what?", "-f", "pipe") as terminal:
        terminal.wait_for("waiting for pipe, a pipe, to be closed by its writer (Ctrl-C stops)")
        writer = threading.Thread(target=pipe.write_text, args=("words",))
        writer.start()
        assert terminal.wait() == 0
        writer.join()
    assert asked(upstream) == "what?\n\npipe:\n```\nwords\n```"


def notebook() -> str:
    picture = {"image/png": "iVBORw0K" * 1000, "text/plain": ["<Figure>"]}
    cell = {"cell_type": "code", "source": ["plot()"], "outputs": [{"data": picture}]}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4})


def test_the_pictures_of_a_notebook_are_left_out(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "nb.ipynb").write_text(notebook())
    ran = moa.run("ask", "what?", "-f", "nb.ipynb")
    assert ran.code == 0
    told = "moa: nb.ipynb: left out 1 picture or other data of its outputs, 8 kB"
    assert told in ran.err.splitlines()
    assert "iVBORw0K" not in asked(upstream)
    assert '"image/png": "(left out: 8 kB of image/png)"' in asked(upstream)
    assert "plot()" in asked(upstream)
    assert "<Figure>" in asked(upstream)


def test_also_those_of_one_that_is_piped_in(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "what?", stdin=notebook().encode()).code == 0
    assert "iVBORw0K" not in asked(upstream)
