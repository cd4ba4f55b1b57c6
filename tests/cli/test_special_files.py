"""Where a file of settings, keys or prompts is expected, there may be a pipe or a device. A pipe
that a program writes to is read; for all others, there is an error at once, and nothing of them is
replaced."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import KEY, Moa
from tests.support.upstream import Upstream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")

PROFILE = '[[proposers]]\nmodel = "lab:a"\n\n[aggregator]\nmodel = "lab:agg"\n'
ASK = ("ask", "hi", "--no-save")


@contextmanager
def written(pipe: Path, text: str) -> Iterator[None]:
    """A pipe to which a program writes this text: once, or, as a key manager does, for each reader
    of keys."""

    def write() -> None:
        while not done.is_set():
            with pipe.open("w") as file:
                file.write("" if done.is_set() else text)
            done.wait(0.1 if pipe.name == ".env" else None)

    done = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        while writer.is_alive():
            # It may wait for a reader.
            os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            writer.join(0.1)


def place(moa: Moa, name: str) -> Path:
    """The path of a pipe in place of one of the files, or of one that an option names."""
    folders = {"config.toml": moa.config, ".env": moa.config, "lab.toml": moa.config / "profiles"}
    pipe = folders.get(name, moa.folder) / name
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    return pipe


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("config.toml", None, ASK),
        ("lab.toml", PROFILE, ASK),
        ("pipe", PROFILE, (*ASK, "-p", "./pipe")),
        ("pipe", "Merge these.\n{references}", (*ASK, "--merge-prompt", "pipe")),
        (".env", f"LAB_KEY={KEY}\n", ASK),
    ],
)
def test_a_pipe_is_read_if_a_program_writes_to_it(
    moa: Moa, upstream: Upstream, name: str, text: str | None, command: tuple[str, ...]
) -> None:
    if name == ".env":
        del moa.environment["LAB_KEY"]
    if text is None:
        text = (moa.config / name).read_text()
    pipe = place(moa, name)
    with written(pipe, text):
        ran = moa.run(*command)
    assert (ran.code, upstream.chats()[0].headers["authorization"]) == (0, f"Bearer {KEY}"), ran.err
    ran = moa.run(*command)
    assert f"{pipe.name}: cannot be read: it is a pipe, and no program writes to it" in ran.err
    assert (ran.code, ran.err.count("Traceback")) == (76 if name == ".env" else 2, 0)


@pytest.mark.parametrize("option", ["--api-key-file", None])
def test_a_server_does_not_start_without_its_keys(moa: Moa, option: str | None) -> None:
    pipe = place(moa, "pipe" if option else ".env")
    ran = moa.run("serve", "--port", "0", *([option, "pipe"] if option else []))
    assert ran.code == 2
    why = f"{pipe.name}: cannot be read: it is a pipe, and no program writes to it"
    assert why in ran.err
    if option is None:
        del moa.environment["LAB_KEY"]
        doctor = moa.run("doctor", "--offline")
        assert why in " ".join(doctor.text.split())


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_a_device_without_an_end_is_not_read_for_ever(moa: Moa) -> None:
    (moa.config / "config.toml").unlink()
    (moa.config / "config.toml").symlink_to("/dev/zero")
    ran = moa.run(*ASK)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "config.toml: cannot be read: it has no end" in ran.err


REFUSED = "cannot be written: it is a device, a pipe or a socket"


def test_a_pipe_is_never_replaced_by_a_file(moa: Moa) -> None:
    pipe = place(moa, "lab.toml")
    ran = moa.run("profile", "copy", "local", "lab", "--force")
    assert (ran.code, f"lab.toml: {REFUSED}" in ran.err) == (2, True)
    assert pipe.is_fifo()


def test_nor_is_a_device_that_the_settings_are_a_link_to(moa: Moa) -> None:
    null = moa.folder / "null"
    try:
        # Not /dev/null itself: root could replace it.
        os.mknod(null, stat.S_IFCHR | 0o666, Path("/dev/null").stat().st_rdev)
        assert null.read_bytes() == b""
    except OSError:
        pytest.skip("only root may make a device")
    (moa.config / "config.toml").unlink()
    (moa.config / "config.toml").symlink_to(null)
    ran = moa.run("config", "set", "save", "false")
    assert (ran.code, f"config.toml: {REFUSED}" in ran.err) == (2, True)
    assert null.is_char_device()


def test_the_folder_of_a_virtual_environment_holds_no_keys(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / ".env").mkdir()
    assert moa.run(*ASK).code == 0
    del moa.environment["LAB_KEY"]
    assert ".env: cannot be read" not in moa.run(*ASK).err


def test_a_result_is_written_to_a_stream_of_the_process_by_its_path(moa: Moa) -> None:
    assert moa.run("ask", "hi").code == 0
    export = ("history", "export", "--all")
    expected = moa.run(*export).out
    assert b"hi" in expected
    assert moa.run(*export, "-o", "/dev/stdout").out == expected
    log = moa.folder / "log"
    log.write_bytes(b"before\n")
    with log.open("ab") as file, moa.start(*export, "-o", "/dev/stdout", stdout=file) as process:
        assert process.wait() == 0
    assert log.read_bytes() == b"before\n" + expected
    assert moa.run(*export, "-o", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()
