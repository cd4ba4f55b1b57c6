"""What moa relies on in other packages although they do not promise it.

Each such thing is used in one file, and the package's minor release is pinned in `pyproject.toml`.
If a test here fails after an upgrade, its message names the file to adapt.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import io
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moa_cli"

# Modules that their packages do not document, and the one file that may import each.
UNDOCUMENTED = {
    "aiohttp.http_exceptions": "clients/http/direct.py",
    "dotenv.parser": "models/env_files.py",
    "prompt_toolkit.input.typeahead": "chat/keys.py",
    "rich._wrap": "markdown/elements.py",
    "rich.cells": "terminal/table.py",
    "typer.core": "cli/commands.py",
    "typer.main": "cli/commands.py",
    "uvicorn.protocols": "server/http_server.py",
}
# Private attributes of other packages, and the one file that may name each.
PRIVATE = {
    "_buffer": "clients/http/direct.py",
    "_calculate_column_widths": "markdown/elements.py",
    "_runtime_param": "cli/commands.py",
}
# Public names that begin with an underscore.
DOCUMENTED = {"_asdict", "_exit", "_replace", "_fields"}
PINNED = ("aiohttp", "rich", "together", "typer", "uvicorn")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """The dotted names of what other packages are imported for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_undocumented_modules_are_imported_in_one_file_each() -> None:
    used: set[str] = set()
    for file, tree in sources():
        for name in imported(tree):
            if name.startswith(("moa_cli", "__future__")):
                continue
            module = next((m for m in UNDOCUMENTED if f"{name}.".startswith(f"{m}.")), None)
            if module is not None:
                used.add(module)
                assert file == UNDOCUMENTED[module], f"{name} belongs into {UNDOCUMENTED[module]}"
            else:
                assert not re.search(r"\._(?!_)", name), f"{file} imports {name}, which is private"
    assert used == UNDOCUMENTED.keys()


def test_private_attributes_of_others_are_named_in_one_file_each() -> None:
    own = {
        node.attr if isinstance(node, ast.Attribute) else node.name
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute) and _is_of_self(node))
    } - PRIVATE.keys()
    found = set()
    for file, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not re.match(r"_[^_]", node.attr):
                continue
            if node.attr in PRIVATE:
                found.add(node.attr)
                assert file == PRIVATE[node.attr], f"{node.attr} belongs into {PRIVATE[node.attr]}"
            else:
                assert node.attr in own | DOCUMENTED, f"{file} uses {ast.unparse(node)}"
    assert found == PRIVATE.keys()


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@pytest.mark.parametrize("name", PINNED)
def test_the_minor_release_is_pinned_where_internals_are_relied_on(name: str) -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [table["dependencies"], *table["optional-dependencies"].values()]
    requirements = [Requirement(line) for lines in declared for line in lines]
    (requirement,) = [found for found in requirements if found.name == name]
    (upper,) = [spec.version for spec in requirement.specifier if spec.operator == "<"]
    assert re.fullmatch(r"\d+\.\d+", upper), f"{requirement} allows minor releases to come"
    assert importlib.metadata.version(name) in requirement.specifier


def relied_on(holds: bool, package: str, what: str, file: str) -> None:
    release = importlib.metadata.version(package)
    assert holds, f"{package} {release}: no longer true that {what}; adapt moa_cli/{file}"


# --- uvicorn


class Wire(asyncio.Transport):
    """The other side of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_uvicorn_serves_as_http_server_py_relies_on() -> None:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "uvicorn", what, "server/http_server.py")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    heads = bodies = 0

    class Protocol(HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            nonlocal heads
            heads += 1
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            nonlocal bodies
            bodies += 1
            super().on_message_complete()

    async def run() -> None:
        config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        state, wire = ServerState(), Wire()
        protocol = Protocol(config=config, server_state=state, app_state={})
        protocol.connection_made(wire)
        holds(protocol in state.connections, "`server_state.connections` holds each protocol")
        holds(protocol.transport is wire, "a protocol keeps its `transport`")
        holds(protocol.cycle is None, "`cycle` is None before the first request")
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n")
        holds(heads == 0, "`on_headers_complete` waits for the whole head")
        protocol.data_received(b"\r\n")
        holds(heads == 1, "`on_headers_complete` is called for a whole head")
        holds(not protocol.cycle.response_complete, "`cycle` is the request at work")
        for _ in range(5):
            await asyncio.sleep(0)
        holds(protocol.cycle.response_complete, "`response_complete` tells that it has ended")
        holds(b" 204 " in wire.sent, "answers are written to the connection's transport")
        for limit, status in ((0, b" 503 "), (None, b" 204 ")):
            protocol.limit_concurrency, wire.sent = limit, b""
            protocol.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(5):
                await asyncio.sleep(0)
            holds(status in wire.sent, "a connection's `limit_concurrency` refuses its requests")
        protocol.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        before = bodies
        protocol.data_received(b"x")
        holds(bodies == before, "`on_message_complete` waits for the whole body")
        protocol.data_received(b"x")
        holds(bodies == before + 1, "`on_message_complete` is called also after the response")
        holds(not protocol.cycle.body, "what comes of a body after the response is dropped")
        protocol.send_400_response("no")
        holds(b" 400 " in wire.sent and wire.closed, "`send_400_response` answers and closes")
        wire.closed = False
        protocol.timeout_keep_alive_handler()
        holds(wire.closed, "`timeout_keep_alive_handler` closes the connection")
        protocol.connection_lost(None)
        holds(not state.connections, "a lost connection leaves `server_state.connections`")

    asyncio.run(run())


def test_uvicorn_ends_as_http_server_py_relies_on() -> None:
    import contextlib

    import uvicorn

    steps: list[str] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            steps.append("started")
            self.should_exit = True

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            steps.append("signals")
            yield
            steps.append("ended")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody has asked")

    server = Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(server.serve(sockets=[listening]))
    what = "`capture_signals` is around `startup`, and `should_exit` ends serving"
    relied_on(
        steps == ["signals", "started", "ended"] and server.force_exit is False,
        "uvicorn",
        what,
        "server/http_server.py",
    )


# --- Starlette


def test_starlette_raises_for_unknown_paths_as_app_py_relies_on() -> None:
    from starlette.exceptions import HTTPException
    from starlette.routing import Route, Router

    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    router = Router([Route("/known", lambda request: None, methods=["POST"])])
    scope = {"type": "http", "headers": [], "query_string": b"", "root_path": "", "app": router}
    statuses = []
    for method, path in (("GET", "/unknown"), ("GET", "/known")):
        try:
            asyncio.run(router({**scope, "method": method, "path": path}, never, never))
        except HTTPException as error:
            statuses.append(error.status_code)
    what = "a router whose scope names an application raises in place of answering"
    relied_on(statuses == [404, 405], "starlette", what, "server/app.py")


# --- Rich


def test_rich_breaks_lines_and_sizes_columns_as_elements_py_relies_on() -> None:
    from rich import box
    from rich._wrap import divide_line
    from rich.console import Console
    from rich.table import Table

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "rich", what, "markdown/elements.py")

    holds(divide_line("one two three", 8) == [8], "`divide_line` returns where lines begin")
    holds(divide_line("abcdefgh", 3) == [3, 6], "`divide_line` folds a long word")

    class Fixed(Table):
        first = 0

        def _calculate_column_widths(self, console: Any, options: Any) -> list[int]:
            assert len(super()._calculate_column_widths(console, options)) == 2
            return [self.first, 3]

    def place_of_second(first: int) -> int:
        table = Fixed("a", "b", box=box.SIMPLE, pad_edge=False, show_header=False)
        table.first = first
        table.add_row("a", "b")
        console = Console(file=io.StringIO(), width=40)
        with console.capture() as captured:
            console.print(table)
        return captured.get().replace("\n", "").strip().index("b")

    moved = place_of_second(9) - place_of_second(6)
    holds(moved == 3, "columns are as wide as `_calculate_column_widths` says")


def test_rich_draws_markdown_as_elements_py_relies_on() -> None:
    from markdown_it import MarkdownIt
    from rich.console import Console
    from rich.markdown import Markdown, Paragraph, TableElement, TextElement

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "rich", what, "markdown/elements.py")

    cells: list[str] = []

    class Shout(Paragraph):
        def __rich_console__(self, console: Any, options: Any) -> Any:
            yield self.text.plain.upper()

    class Cells(TableElement):
        def __rich_console__(self, console: Any, options: Any) -> Any:
            assert self.header is not None
            assert self.header.row is not None
            assert self.body is not None
            rows = [self.header.row, *self.body.rows]
            cells.extend(cell.content.plain for row in rows for cell in row.cells)
            return ()

    class Document(Markdown):
        elements: ClassVar = {**Markdown.elements, "paragraph_open": Shout, "table_open": Cells}

    holds(issubclass(Paragraph, TextElement), "a paragraph is a `TextElement`")
    holds({"em", "strong", "code"} <= set(Markdown.inlines), "`inlines` names inline tokens")
    document = Document("", hyperlinks=False)
    parser = MarkdownIt("commonmark").enable(["table"])
    document.parsed = parser.parse("word\n\n| a | b |\n|---|---|\n| c | d |\n")
    console = Console(file=io.StringIO(), width=40)
    with console.capture() as captured:
        console.print(document)
    holds("WORD" in captured.get(), "`parsed` is drawn, by the classes in `elements`")
    holds(cells == ["a", "b", "c", "d"], "a table keeps its cells in `header` and `body`")


@pytest.mark.parametrize(
    ("text", "cells"), [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("🙂", 2)]
)
def test_rich_counts_cells_as_table_py_relies_on(text: str, cells: int) -> None:
    from moa_cli.terminal.table import cell_len, set_cell_size

    relied_on(
        cell_len(text) == cells and cell_len(set_cell_size(text, 5)) == 5,
        "rich",
        f"{text!r} takes {cells} cells",
        "terminal/table.py",
    )


# --- aiohttp

AUTHORITIES_READ = """\
import ssl
read = []
ssl.SSLContext.set_default_verify_paths = lambda self: read.append(self)
import aiohttp
print(len(read))
"""


def test_aiohttp_reads_authorities_as_late_authorities_py_relies_on() -> None:
    """Once it does not, that file can go."""
    command = [sys.executable, "-c", AUTHORITIES_READ]
    times = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    what = "its import reads authorities by `set_default_verify_paths`"
    relied_on(int(times) > 0, "aiohttp", what, "clients/http/late_authorities.py")


def test_aiohttp_lets_a_request_be_written_as_direct_py_relies_on() -> None:
    from aiohttp import BaseConnector, ClientRequest, StreamReader
    from aiohttp.client_proto import ResponseHandler

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "aiohttp", what, "clients/http/direct.py")

    taken = [*inspect.signature(BaseConnector.connect).parameters][1:]
    holds(taken == ["req", "traces", "timeout"], "`connect` takes a request, traces and a timeout")
    source = inspect.getsource(BaseConnector.connect) + inspect.getsource(BaseConnector._get)
    used = set(re.findall(r"\breq\.(\w+)", source))
    holds(used <= {"connection_key", "proxy"}, "it takes from a request where it leads, only")
    holds(hasattr(ClientRequest, "connection_key"), "`ClientRequest` has a `connection_key`")
    options = inspect.signature(ResponseHandler.set_response_params).parameters
    wanted = {"read_until_eof", "read_bufsize", "max_line_size", "max_field_size"}
    holds(wanted <= options.keys(), "`set_response_params` takes these options")
    body = inspect.getsource(StreamReader.readany)
    waits = 'while not self._buffer and not self._eof:\n            await self._wait("readany")'
    holds(waits in body, "a body has its pieces in `_buffer`, and waits for more in `_wait`")
    taken_first = inspect.getsource(StreamReader._read_nowait_chunk)
    holds("self._buffer.popleft()" in taken_first, "it takes its pieces from the left")


# --- the SDK


def test_the_sdk_lists_models_as_together_sdk_py_relies_on() -> None:
    import together

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "together", what, "clients/together_sdk.py")

    holds("cast_to" in inspect.signature(together.AsyncTogether.get).parameters, "`get` takes it")
    taken = inspect.signature(together.DefaultAsyncHttpxClient.__init__).parameters.values()
    holds(
        any(option.kind is option.VAR_KEYWORD for option in taken),
        "its client takes httpx's options",
    )
    kinds = [kind for kind in list(vars(together).values()) if inspect.isclass(kind)]
    strays = [
        kind.__name__
        for kind in kinds
        if issubclass(kind, Exception) and not issubclass(kind, together.TogetherError)
    ]
    holds(not strays, f"all exceptions derive from TogetherError (not {strays})")


# --- Typer


def test_typer_makes_commands_as_commands_py_relies_on() -> None:
    import typer
    import typer.main
    from typer.core import TyperCommand, TyperGroup

    def holds(is_true: bool, what: str) -> None:
        relied_on(is_true, "typer", what, "cli/commands.py")

    calls: list[str] = []

    class Converter:
        def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
            calls.append(param.name)
            return value

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for parameter in self.get_params(ctx):
                vars(parameter)["_runtime_param"] = Converter()
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            holds(given == {"word": "w"}, "`make_parser` tells the words as they were typed")
            return super().parse_args(ctx, args)

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return ["hello"]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            calls.append(f"get {cmd_name}")
            return typer.main.get_command(alone)

    def hello(word: str) -> str:
        return f"said {word}"

    alone, app = typer.Typer(add_completion=False), typer.Typer(cls=Group)
    alone.command("hello", cls=Command)(hello)
    app.callback()(lambda: None)
    said = app(["hello", "w"], standalone_mode=False)
    holds(said == "said w", "without `standalone_mode` the result of a command is returned")
    holds("get hello" in calls, "a group asks `get_command` for its commands")
    # An older Typer has no such converter to be spared.
    older = importlib.metadata.version("typer").startswith("0.28.")
    holds(older or "word" in calls, "`_runtime_param` converts the value of a parameter")
    [argument] = [
        parameter
        for parameter in typer.main.get_command(alone).params
        if parameter.param_type_name == "argument"
    ]
    vars(argument)["display_type_rich"] = lambda ctx: None
    record = argument.get_help_record(typer.Context(typer.main.get_command(alone)))
    holds(
        record is not None and "<" not in record[0], "`display_type_rich` names an argument's type"
    )


# --- prompt-toolkit, python-dotenv, markdown-it-py


def test_keys_typed_ahead_are_kept_as_keys_py_relies_on() -> None:
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
    from prompt_toolkit.key_binding import KeyPress

    with create_pipe_input() as source:
        store_typeahead(source, [KeyPress("a")])
        store_typeahead(source, [KeyPress("b")])
        keys = [press.key for press in get_typeahead(source)]
        rest = get_typeahead(source)
    what = "`get_typeahead` takes out, in order, what `store_typeahead` has put in"
    relied_on((keys, rest) == (["a", "b"], []), "prompt_toolkit", what, "chat/keys.py")


def test_env_files_are_parsed_as_env_files_py_relies_on() -> None:
    from dotenv.parser import parse_stream

    first, second = parse_stream(io.StringIO("KEY='a b'\n= broken\n"))
    what = "`parse_stream` gives a binding for each line, with its value or its error"
    holds = (first.key, first.value, first.error) == ("KEY", "a b", False) and second.error
    relied_on(
        holds and (second.original.line, second.original.string) == (2, "= broken\n"),
        "python-dotenv",
        what,
        "models/env_files.py",
    )


def test_link_labels_are_folded_as_blocks_py_relies_on() -> None:
    from markdown_it import MarkdownIt
    from markdown_it.common.utils import normalizeReference

    env: dict[str, Any] = {}
    MarkdownIt("commonmark").parse("[A  ß]: https://example.com\n", env)
    what = "`normalizeReference` makes the keys of `references`"
    relied_on(
        list(env["references"]) == [normalizeReference("a ß")],
        "markdown-it-py",
        what,
        "markdown/blocks.py",
    )
