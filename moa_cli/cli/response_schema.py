"""`--schema`: the JSON Schema that a reply has to be valid by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.core.errors import UsageError

if TYPE_CHECKING:
    from moa_cli.engine.structured import ResponseFormat


def read_schema(typed: str) -> ResponseFormat:
    """What a reply has to be.

    typed: the name of a file, or the schema itself, which begins with a brace.
    Raises UsageError if it cannot be read, or is no schema that can be used.
    """
    from moa_cli.core.text_files import read_text
    from moa_cli.core.values import JSON, ValueFault
    from moa_cli.engine.structured import ResponseFormat, read_json

    inline = typed.lstrip().startswith("{")
    if typed == "-":
        raise UsageError(
            "--schema -: standard input belongs to the prompt", hint="name a file with the schema"
        )
    place = "--schema" if inline else f"--schema {typed}"
    text = typed if inline else read_text(Path(typed))
    try:
        found = ResponseFormat.of({"type": "json_schema", "schema": read_json(text)})
    except ValueFault as fault:
        raise UsageError(f"{place}: {fault.sentence(JSON)}") from None
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None
    assert found is not None
    return found
