"""A name server that does not answer costs a few seconds once, and holds neither Ctrl-C nor the
end of the process."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.command import PATIENCE, Moa

HOST = "api.hanging.example"
# Far longer than any test waits.
HANGING = f"""
import pathlib, socket, time

real = socket.getaddrinfo

def hang(host, *arguments, **options):
    if host != {HOST!r}:
        return real(host, *arguments, **options)
    with open(pathlib.Path(__file__).with_name("asked"), "a") as asked:
        asked.write("x")
    time.sleep(600)

socket.getaddrinfo = hang
"""


@pytest.fixture
def asked(moa: Moa, tmp_path: Path) -> Path:
    """What looks up that host in vain writes a letter into this file for each time."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HANGING, "utf-8")
    moa.environment["PYTHONPATH"] = f"{hooks}:{moa.environment['PYTHONPATH']}"
    moa.profile("one")
    there = {"base_url": f"http://{HOST}/v1", "api_key_env": "LAB_KEY"}
    moa.configure(profile="one", retries=3, providers={"lab": there, "together": there})
    return hooks / "asked"


def wait_for(process: subprocess.Popen[bytes], file: Path) -> None:
    while not file.exists():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)


@pytest.mark.parametrize("arguments", [["ask", "hi"], ["models", "lab"], ["models", "together"]])
def test_ctrl_c_is_not_held(moa: Moa, asked: Path, arguments: list[str]) -> None:
    with moa.start(*arguments, fresh=True) as process:
        wait_for(process, asked)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


@pytest.mark.slow
def test_it_is_told_once_and_the_process_ends(moa: Moa, asked: Path) -> None:
    write_lines(moa.folder / "in.jsonl", [{"id": "q", "prompt": "hi"}])
    socks = {"ALL_PROXY": f"socks5h://{HOST}:1080"}
    behind = {"http_proxy": f"http://{HOST}:3128"}
    commands = [
        (["ask", "hi"], {}),
        (["ask", "-v", "hi"], {}),
        (["batch", "in.jsonl", "out.jsonl"], {}),
        (["models", "lab"], {}),
        (["models", "together"], {}),
        (["ask", "hi"], behind),
        (["ask", "hi"], socks),
        (["ask", "hi"], {"ALL_PROXY": "socks5://127.0.0.1:1080"}),
        (["models", "together"], behind),
        (["models", "together"], socks),
    ]
    # A few at a time: a machine that is busy to start them all would keep to none of the limits.
    for some in (commands[place : place + 3] for place in range(0, len(commands), 3)):
        with ExitStack() as stack:
            processes = [
                stack.enter_context(moa.start(*arguments, env=env, fresh=True))
                for arguments, env in some
            ]
            for (arguments, _), process in zip(some, processes, strict=True):
                err = process.communicate(timeout=PATIENCE)[1].decode()
                assert process.returncode not in (0, 2), arguments
                assert "no name server returned its address within" in err, (arguments, err)
                assert "again in" not in err
                assert "Traceback" not in err
    # By a call, and by the list of prices beside it.
    assert len(asked.read_text()) <= 2 * len(commands)
