"""Standard streams as they are given: closed, opened the wrong way round, full, open without end,
or shared with another program. A command answers, or says in one line why it does not."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.command import PATIENCE, Moa, Ran
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
MODELS = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"


def in_shell(moa: Moa, script: str, env: Mapping[str, str | None] | None = None) -> Ran:
    """What comes of a script in which `moa` is the command."""
    command = shlex.join([sys.executable, "-m", "moa_cli"])
    changed = moa.environment | dict(env or {})
    ran = subprocess.run(
        ["sh", "-c", f'moa() {{ {command} "$@"; }}\n{script}'],
        env={name: value for name, value in changed.items() if value is not None},
        cwd=moa.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode())


@pytest.mark.parametrize(
    ("streams", "out", "err"),
    [
        ("<&-", b"ok\n", MODELS),
        ("2>&-", b"ok\n", ""),
        (">&-", b"", MODELS),
        ("<&- >&-", b"", MODELS),
        ("<&- 2>&-", b"ok\n", ""),
        ("<&- >&- 2>&-", b"", ""),
    ],
)
def test_a_closed_stream_is_like_the_null_device(
    moa: Moa, upstream: Upstream, streams: str, out: bytes, err: str
) -> None:
    ran = in_shell(moa, f"moa ask hi {streams}")
    assert (ran.code, ran.out, ran.err) == (0, out, err)
    assert len(upstream.chats("agg")) == 1
    [conversation] = json.loads(moa.run("history", "list", "--json").out)
    assert conversation["turns"] == 1


@pytest.mark.parametrize("streams", ["0>/dev/null", "1</dev/null", "2</dev/null"])
def test_a_stream_that_is_opened_the_wrong_way_round_is_like_a_closed_one(
    moa: Moa, streams: str
) -> None:
    ran = in_shell(moa, f"moa ask hi {streams}")
    assert ran.code == 0
    assert ran.out in (b"ok\n", b"")
    assert ran.err in (MODELS, "")


def test_a_failure_is_told_by_the_exit_code_where_standard_error_is_closed(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(status=500))
    assert in_shell(moa, "moa ask hi 2>&-").code == 1


@pytest.mark.parametrize("streams", ["<&-", "<&- 2>&-", "0>/dev/null"])
def test_a_chat_without_standard_input_ends(moa: Moa, streams: str) -> None:
    ran = in_shell(moa, f"moa chat {streams}")
    assert (ran.code, ran.out) == (0, b"")
    assert "Traceback" not in ran.err


def test_a_chat_and_a_batch_go_on_without_standard_error(moa: Moa) -> None:
    ran = in_shell(moa, "echo hi | moa chat 2>&-; echo hi | moa batch --lines - out.jsonl 2>&-")
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert len((moa.folder / "out.jsonl").read_text().splitlines()) == 1


@full_device
def test_notices_on_a_full_device_are_lost_and_nothing_else(moa: Moa) -> None:
    with open("/dev/full", "wb") as full, moa.start("ask", "hi", stderr=full) as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"ok\n")


def test_a_reader_of_notices_who_leaves_ends_nothing(moa: Moa) -> None:
    with moa.start("ask", "-v", "hi") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout.read() == b"ok\n"
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("arguments", [["hi"], ["hi", "-q"], []], ids=" ".join)
def test_an_open_pipe_to_which_nobody_writes_is_told_of(moa: Moa, arguments: list[str]) -> None:
    with moa.start("ask", *arguments, stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        out, _ = process.communicate(b"later", timeout=PATIENCE)
    assert told.startswith("moa: waiting for standard input, which has sent nothing so far")
    assert told.endswith("(-n asks without it)\n" if arguments else "so far\n")
    assert (process.returncode, out) == (0, b"ok\n")


def test_a_pipe_that_does_not_end_is_told_of(moa: Moa) -> None:
    with moa.start("ask", "hi", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a line\n")
        process.stdin.flush()
        told = process.stderr.readline()
        process.communicate(timeout=PATIENCE)
    assert told == b"moa: waiting for the end of standard input (-n asks without it)\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("chat",), b"moa: waiting for prompts on standard input\n"),
        (("batch", "--lines", "-", "-"), b"moa: waiting for standard input"),
        (("history", "import", "-"), b"moa: waiting for standard input"),
    ],
)
def test_other_commands_tell_of_such_a_pipe_too(
    moa: Moa, arguments: tuple[str, ...], told: bytes
) -> None:
    with moa.start(*arguments, stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(line.startswith(told) for line in lines)


def test_without_standard_input_nothing_of_it_is_read(moa: Moa, upstream: Upstream) -> None:
    with moa.start("ask", "-n", "hi", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ok\n"
        assert process.wait(PATIENCE) == 0
    assert upstream.chats("agg")[0].messages[-1]["content"] == "hi"
    ran = moa.run("ask", "--no-stdin", "-f", "-", stdin=b"text")
    assert (ran.code, ran.err) == (2, "moa: --no-stdin and -f - cannot be used together\n")


def test_a_pipe_without_blocking_is_read_whole(moa: Moa, upstream: Upstream) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(writing, "wb") as pipe, moa.start("ask", stdin=reading) as process:
        os.close(reading)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"moa: waiting for standard input")
        pipe.write(b"a late question")
        pipe.close()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert upstream.chats("agg")[0].messages[-1]["content"] == "a late question"


def test_a_loop_over_the_lines_of_a_file_keeps_its_lines(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "questions").write_text("Why?\nHow?\n")
    ran = in_shell(moa, 'while read -r line; do moa ask "$line"; done < questions')
    assert (ran.code, ran.out) == (0, b"ok\nok\n")
    asked = [str(chat.messages[-1]["content"]) for chat in upstream.chats("agg")]
    assert asked == ["Why?", "How?"]
    unread = "moa: standard input is not read, because another program reads it too"
    assert ran.err.count(unread) == 1
    assert "to add the rest of it, pass -f -" in ran.err


def test_the_rest_of_a_file_is_read_if_it_is_asked_for(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "questions").write_text("Why?\nHow?\nWhen?\n")
    script = 'moa ask "$line" -f -'
    ran = in_shell(moa, f"{{ read -r line; {script}; }} < questions")
    assert ran.code == 0
    content = upstream.chats("agg")[0].messages[-1]["content"]
    assert content == "Why?\n\n```\nHow?\nWhen?\n```"


def test_a_pipe_that_a_loop_reads_is_added_and_told_of(moa: Moa, upstream: Upstream) -> None:
    script = "printf 'Why?\\nHow?\\nWhen?\\n' | while read -r line; do moa ask \"$line\"; done"
    ran = in_shell(moa, script)
    assert "moa: 2 lines of standard input added (-n: do not read it)\n" in ran.err
    assert len(upstream.chats("agg")) == 1
    ran = in_shell(moa, script.replace("moa ask", "moa ask -n"))
    assert ran.out == b"ok\nok\nok\n"


def test_a_file_as_standard_input_is_added_to_the_prompt(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "text").write_text("one\ntwo\n")
    assert in_shell(moa, "moa ask hi < text").code == 0
    assert upstream.chats("agg")[0].messages[-1]["content"] == "hi\n\n```\none\ntwo\n```"


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_user_without_home_and_account_has_the_root_folder_as_home(
    moa: Moa, tmp_path: Path, home: str | None
) -> None:
    # Python runs this module before the command.
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\ndef getpwuid(number):\n    raise KeyError(number)\npwd.getpwuid = getpwuid\n"
    )
    path = f"{tmp_path}{os.pathsep}{moa.environment['PYTHONPATH']}"
    env = {"HOME": home, "MOA_CONFIG_DIR": None, "PYTHONPATH": path}
    ran = moa.run("doctor", "--offline", env=env, fresh=True)
    assert "config: no /.config/moa/config.toml, defaults apply" in ran.text
    assert ran.err == ""


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to this user")
def test_a_home_of_another_user_is_no_reason_not_to_answer(moa: Moa) -> None:
    closed = moa.folder / "closed"
    closed.mkdir(mode=0o000)
    env = {f"MOA_{kind}_DIR": str(closed / "moa") for kind in ("DATA", "STATE", "CACHE")}
    ran = moa.run("ask", "hi", env=env)
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert "this conversation is not saved" in ran.err
    ran = moa.run("ask", "hi", env={"MOA_CONFIG_DIR": str(closed / "moa")})
    assert ran.code == 2
    assert "Permission denied (set HOME, or MOA_CONFIG_DIR)" in ran.err


def test_a_locale_without_letters_changes_no_prompt(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "größe").write_text("Maß")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert moa.run("ask", "Grüße 世界", "-f", "größe", env=env, fresh=True).code == 0
    content = upstream.chats("agg")[0].messages[-1]["content"]
    assert content == "Grüße 世界\n\ngröße:\n```\nMaß\n```"


def test_a_working_directory_that_was_removed_is_needed_by_few_commands(moa: Moa) -> None:
    moa.profile("lab", "a")
    gone = "mkdir gone; cd gone; rmdir ../gone;"
    for command in ("ask hi", "config list", "models lab", "profile list", "history list"):
        ran = in_shell(moa, f"{gone} moa {command}")
        assert (ran.code, "No such file" in ran.err) == (0, False), ran.err
    ran = in_shell(moa, f"{gone} moa history backup x.db")
    assert ran.code == 1
    assert ran.err == "moa: the working directory was removed (`cd` to another one)\n"
