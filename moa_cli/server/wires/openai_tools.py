"""The tools that OpenAI's models know by name, and that the client runs, as functions that any
model can call.

A request gives only the type of such a tool. Source: OpenAI's API reference, "Create a model
response", and its guides "Shell", "Local shell" and "Apply patch".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moa_cli.core.nesting import is_deeper
from moa_cli.core.text import loads_or_none

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_TEXTS = {"type": "array", "items": _TEXT}


@dataclass(frozen=True)
class BuiltinTool:
    """A tool of a type. prefix: of the ids of its calls. holder: the field of a call that holds the
    arguments. preset: arguments that clients expect and the model may leave out."""

    prefix: str
    holder: str
    description: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]
    preset: Mapping[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """The description and the parameters of the function."""
        properties, required = dict(self.properties), list(self.required)
        parameters = {"type": "object", "properties": properties, "required": required}
        return {"description": self.description, "parameters": parameters}

    def call(self, arguments: str) -> dict[str, Any]:
        """The arguments of a call as the client expects them. A call whose arguments are no JSON
        object does nothing."""
        found = loads_or_none(arguments)
        if not isinstance(found, dict) or is_deeper(found):
            found = {}
        return {self.holder: {**self.preset, **found}}


BUILTIN: Mapping[str, BuiltinTool] = {
    "shell": BuiltinTool(
        prefix="sh",
        holder="action",
        description=(
            "Run shell commands on the user's machine. The result has the output and the exit code"
            " of each command."
        ),
        properties={"commands": _TEXTS, "timeout_ms": _NUMBER, "max_output_length": _NUMBER},
        required=("commands",),
        preset={"commands": [], "timeout_ms": None, "max_output_length": None},
    ),
    "local_shell": BuiltinTool(
        prefix="lsh",
        holder="action",
        description=(
            "Run a program on the user's machine. `command` is the program with its arguments, such"
            ' as ["bash", "-lc", "ls | wc -l"].'
        ),
        properties={
            "command": _TEXTS,
            "env": {"type": "object", "additionalProperties": _TEXT},
            "timeout_ms": _NUMBER,
            "working_directory": _TEXT,
        },
        required=("command",),
        preset={"type": "exec", "command": [], "env": {}},
    ),
    "apply_patch": BuiltinTool(
        prefix="apc",
        holder="operation",
        description=(
            "Create, update or delete one file. `diff` has no headers and no line numbers. With"
            " `create_file` it holds the lines of the file, each after a `+`. With `update_file` it"
            " holds, for each change, a line `@@` (which may name a line above the change, such as"
            " `@@ class Pump:`), then about three unchanged lines after a space each, the old lines"
            " after a `-`, the new lines after a `+`, and about three unchanged lines."
        ),
        properties={
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": _TEXT,
            "diff": _TEXT,
        },
        required=("type", "path"),
        preset={"type": "update_file", "path": "", "diff": ""},
    ),
}
