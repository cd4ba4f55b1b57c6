"""A mixture of three behind `moa serve`, and the released clients that speak to it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.released_clients.scripted import answer
from tests.support.command import Moa
from tests.support.environments import node_modules, others_environment
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

PROGRAMS = Path(__file__).parent / "programs"
_SECONDS = 180
# What only the model that acts may be given.
_OF_THE_AGGREGATOR = {"tools", "tool_choice", "parallel_tool_calls", "response_format"}


def png() -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


@dataclass
class Lab:
    """A server of the profile `lab`, and a folder in which a client is at home."""

    server: Server
    upstream: Upstream
    home: Path
    factory: pytest.TempPathFactory

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client to the server, and away from everything else."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "OPENAI_BASE_URL": self.server.url,
            "OPENAI_API_BASE": self.server.url,
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_BASE_URL": self.server.root,
            "ANTHROPIC_API_KEY": "none",
            "MOA_BASE_URL": self.server.url,
            "MOA_API_KEY": "none",
            "IMAGE_URL": f"data:image/png;base64,{base64.b64encode(png()).decode()}",
            # LiteLLM would fetch a list of prices.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DO_NOT_TRACK": "1",
        }

    def python(self, name: str, *requirements: str, without: Sequence[str] = ()) -> Path:
        """The programs of a Python environment with those packages, `without` some they name."""
        return others_environment(self.factory, name, *requirements, without=without)

    def node(self, name: str, *packages: str) -> Path:
        """A folder with those packages for Node.js."""
        return node_modules(self.factory, name, *packages)

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> str:
        """What a client prints; it must end well."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.home,
            env=self.environment | dict(env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            **given,
        )
        told = f"{ran.stdout[-3000:]}\n{ran.stderr[-6000:]}\n" + "\n".join(self.server.log[-20:])
        assert ran.returncode == 0, told
        return str(ran.stdout)

    def program(self, python: Path, name: str, **env: str) -> dict[str, Any]:
        """What a Python program of `programs` tells in its last line."""
        said = self.run(python / "python", PROGRAMS / f"{name}.py", env=env)
        return dict(json.loads(said.splitlines()[-1]))

    def script(self, modules: Path, name: str, **env: str) -> dict[str, Any]:
        """The same for a program of Node.js, which must lie beside its packages."""
        copy = shutil.copy(PROGRAMS / f"{name}.mjs", modules / f"{name}.mjs")
        return dict(json.loads(self.run("node", copy, env=env).splitlines()[-1]))

    def check_proposers(self) -> None:
        """No proposer was given a tool or a schema."""
        for model in ("a", "b", "c"):
            calls = self.upstream.chats(model)
            assert calls
            assert [call.body.keys() & _OF_THE_AGGREGATOR for call in calls] == [set()] * len(calls)


def large(gigabytes: int) -> pytest.MarkDecorator:
    """For a test whose environment is too large to be made anew for each run."""
    return pytest.mark.skipif(
        not os.environ.get("MOA_TEST_ENVIRONMENTS"),
        reason=f"its environment takes {gigabytes} GB: MOA_TEST_ENVIRONMENTS names a folder that"
        " keeps it",
    )


@pytest.fixture
def options() -> list[str]:
    """Options of `moa serve`, which a test may replace."""
    return []


@pytest.fixture
def lab(
    moa: Moa,
    upstream: Upstream,
    options: list[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """A mixture of three, whose aggregator is scripted."""
    for model in ("a", "b", "c"):
        upstream.always(model, Reply(text=f"{model} would look at it closely."))
    upstream.always("agg", answer)
    home = tmp_path / "client"
    home.mkdir()
    with serving(moa, *options) as server:
        yield Lab(server, upstream, home, tmp_path_factory)
