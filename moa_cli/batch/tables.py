"""Writes OUT as a table or compressed, if its name ends in `.csv`, `.tsv`, `.parquet` or `.gz`.

A file of these formats cannot be continued after a kill. So answers are first written as JSON lines
to a file in OUT.state, and OUT is made from all of these lines whenever a batch ends.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.new_file import check_is_text
from moa_cli.core.text import dumps

# The file of JSON lines in OUT.state from which OUT is made.
ANSWERS = "answers.jsonl"
_BLOCK = 1 << 20
# How many rows are in memory at once; also the size of a Parquet row group.
_ROWS = 5000
# Integers in a Parquet file have 64 bits, so they are below this number.
_INTEGERS = 2**63
_TABLES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


@dataclass(frozen=True)
class OutputFormat:
    """The format of OUT. kind: "jsonl", "csv", "tsv" or "parquet". packed: whether it is compressed
    by gzip."""

    kind: str
    packed: bool = False

    @property
    def is_lines(self) -> bool:
        """Whether each answer can be appended at once, as a line."""
        return self.kind == "jsonl" and not self.packed


def output_format(name: str) -> OutputFormat:
    """The format of a file, by the suffix of its name; JSON lines if the suffix is not known.

    Raises UsageError if the format needs a package that is not installed, cannot be compressed, or
    is one that is never written.
    """
    check_is_text(Path(name))
    name = name.lower()
    packed = name.endswith(".gz")
    kind = _TABLES.get(Path(name.removesuffix(".gz")).suffix, "jsonl")
    if kind == "parquet":
        if packed:
            raise UsageError(f"{name}: Parquet is packed by itself", hint="leave out `.gz`")
        check_parquet(name)
    return OutputFormat(kind, packed)


def check_parquet(name: str) -> None:
    """Raise UsageError, which names that file, if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            f"{name}: Parquet files need an extra",
            hint='install it: uv tool install "moa-chat[parquet]"',
        ) from None


def make_output(lines: Path, target: Path, form: OutputFormat) -> None:
    """Write answers to a file in another format. The file appears only when it is complete, and
    memory does not grow with the number of answers.

    lines: a file of JSON lines, all of them complete. Raises OSError.
    """
    with paths.replacing(target) as file:
        if not form.packed:
            _write(lines, file, form.kind)
            return
        # Without a name and a time in the gzip header, the same answers give the same bytes.
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            _write(lines, cast("IO[bytes]", packed), form.kind)


def _write(lines: Path, file: IO[bytes], kind: str) -> None:
    if kind == "jsonl":
        with lines.open("rb") as source:
            shutil.copyfileobj(source, file, _BLOCK)
    elif kind == "parquet":
        _write_parquet(lines, file)
    else:
        _write_cells(lines, file, "\t" if kind == "tsv" else ",")


def _rows(lines: Path) -> Iterator[dict[str, Any]]:
    with lines.open("rb") as file:
        for line in file:
            row = json.loads(line)
            if b"\\ud" in line:
                # Half of a surrogate pair, which JSON can hold and tables cannot, becomes `?`.
                text = json.dumps(row, ensure_ascii=False)
                row = json.loads(text.encode("utf-8", "replace"))
            yield row


def _columns_of(lines: Path) -> dict[str, type]:
    """The columns of all rows together, in the order of their first occurrence, each with the type
    of its values. Text stands for tables, lists and mixed types."""
    types: dict[str, set[type]] = {}
    for row in _rows(lines):
        for name, value in row.items():
            found = types.setdefault(name, set())
            if value is not None:
                too_large = type(value) is int and not -_INTEGERS <= value < _INTEGERS
                found.add(str if too_large else type(value))
    return {name: _common_type(found) for name, found in types.items()}


def _common_type(types: set[type]) -> type:
    if types == {int, float}:
        return float
    only = next(iter(types)) if len(types) == 1 else str
    return only if only in (bool, int, float) else str


def _text(value: object) -> str:
    """A value as the text of a cell; "" for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return dumps(value)


def _write_cells(lines: Path, file: IO[bytes], delimiter: str) -> None:
    names = list(_columns_of(lines))
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    for row in _rows(lines):
        writer.writerow([_text(row.get(name)) for name in names])
    text.flush()
    text.detach()


def _write_parquet(lines: Path, file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types = _columns_of(lines)
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in types.items()])
    rows = _rows(lines)
    with ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, _ROWS)):
            cells = {
                name: [_cell(row.get(name), kind) for row in group] for name, kind in types.items()
            }
            writer.write_table(pa.table(cells, schema=schema))


def _cell(value: object, kind: type) -> object:
    """A value converted to the type of its column. None stays None, also in a text column."""
    if value is None:
        return None
    if kind is str:
        return _text(value)
    return float(cast("float", value)) if kind is float else value
