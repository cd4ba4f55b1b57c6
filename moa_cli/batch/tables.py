"""The answers of a batch as a table, or packed: OUT is named `.csv`, `.tsv`, `.parquet` or `.gz`.

None of these can be gone on with after a kill in the middle of it. So answers are written to a file
of JSON lines in OUT.state, and OUT is made of all of these whenever a batch ends.
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
from moa_cli.core.text import dumps

# The answers, below OUT.state, where OUT is made of them.
ANSWERS = "answers.jsonl"
_BLOCK = 1 << 20
# Rows that are in memory at once, and that a group of a Parquet file has.
_ROWS = 5000
# The whole numbers of a Parquet file end here.
_INTEGERS = 2**63
_TABLES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


@dataclass(frozen=True)
class OutputFormat:
    """kind: "jsonl", "csv", "tsv" or "parquet". packed: whether by gzip."""

    kind: str
    packed: bool = False

    @property
    def is_lines(self) -> bool:
        """Whether lines can be added as answers come."""
        return self.kind == "jsonl" and not self.packed


def output_format(name: str) -> OutputFormat:
    """What a file of that name holds: JSON lines, unless it tells something else.

    Raises UsageError if that needs a package that is not installed, or cannot be packed.
    """
    name = name.lower()
    packed = name.endswith(".gz")
    kind = _TABLES.get(Path(name.removesuffix(".gz")).suffix, "jsonl")
    if kind == "parquet":
        if packed:
            raise UsageError(f"{name}: Parquet is packed by itself", hint="leave out `.gz`")
        check_parquet(name)
    return OutputFormat(kind, packed)


def check_parquet(name: str) -> None:
    """Raise UsageError, naming a file, if the package for Parquet is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            f"{name}: Parquet files need an extra",
            hint='install it: uv tool install "moa-chat[parquet]"',
        ) from None


def make_output(lines: Path, target: Path, form: OutputFormat) -> None:
    """Make a file, in one step, of answers. Memory does not grow with their number.

    lines: JSON lines, each of them whole. Raises OSError.
    """
    with paths.replacing(target) as file:
        if not form.packed:
            _write(lines, file, form.kind)
            return
        # Without a name and a time, the same answers make the same file.
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
            yield json.loads(line)


def _columns_of(lines: Path) -> dict[str, type]:
    """The columns that hold all rows, in the order in which rows have them, each with the type of
    its values: a table or list, and what is of several types, is text."""
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
    """A value as a cell of text; "" for none."""
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
    """A value as one of that type; None is none of a text, too."""
    if value is None:
        return None
    if kind is str:
        return _text(value)
    return float(cast("float", value)) if kind is float else value
