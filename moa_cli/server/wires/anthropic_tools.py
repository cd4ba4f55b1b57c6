"""The tools that Anthropic's models know by name, and that the client runs, as functions that any
model can call.

A request gives only the type and the name of such a tool. Source: Anthropic's documentation, "Bash
tool", "Text editor tool" and "Memory tool".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = "string"
_WHERE = "line after which to insert the text; 0 for the beginning of the file"
_RANGE = "first and last line to view, counted from 1; -1 as the last line stands for the end"
# The commands of the tools that edit files, with the fields that each needs.
_VIEW = "`view` (show a file with line numbers, or list a directory; `view_range` is optional)"
_CREATE = "`create` (write a file with `file_text`)"
_REPLACE = "`str_replace` (replace `old_str`, which must be in the file exactly once, by `new_str`)"
_INSERT = "`insert` (insert `{text}` after the line `insert_line`)"
# The first version of the text editor whose command `insert` takes `insert_text`, and the last one
# that has `undo_edit`.
_INSERTS_TEXT, _UNDOES = "20250728", "20250124"


def builtin_function(kind: str) -> dict[str, Any] | None:
    """The description and the parameters of the tool of that type; None if it is not known, or
    needs a model that was trained for it (`computer_…`)."""
    name, _, version = kind.rpartition("_")
    match name:
        case "bash":
            properties = {
                "command": _field(_TEXT, "command to run"),
                "restart": _field("boolean", "true to restart the shell; then without a command"),
            }
            told = "Run a command in a bash shell, which keeps its state from call to call."
            return _function(told, properties)
        case "text_editor":
            inserted = "insert_text" if version >= _INSERTS_TEXT else "new_str"
            commands = [_VIEW, _CREATE, _REPLACE, _INSERT.format(text=inserted)]
            if version <= _UNDOES:
                commands.append("`undo_edit` (undo the last edit of the file)")
            return _editor("View and edit text files.", commands, inserted)
        case "memory":
            told = (
                "Read and write files below /memories, which outlive this conversation. View this"
                " directory before you begin, and note there what you need later."
            )
            commands = [_VIEW, _CREATE, _REPLACE, _INSERT.format(text="insert_text")]
            commands += ["`delete` (a file or directory)", "`rename` (`old_path` to `new_path`)"]
            found = _editor(told, commands, "insert_text")
            properties = found["parameters"]["properties"]
            properties |= {"old_path": _field(_TEXT), "new_path": _field(_TEXT)}
            found["parameters"]["required"] = ["command"]
            return found
    return None


def _editor(told: str, commands: list[str], inserted: str) -> dict[str, Any]:
    properties = {
        "command": {"type": _TEXT, "enum": [command.split("`")[1] for command in commands]},
        "path": _field(_TEXT, "path of the file or directory"),
        "view_range": {"type": "array", "items": {"type": "integer"}, "description": _RANGE},
        "file_text": _field(_TEXT),
        "old_str": _field(_TEXT),
        "new_str": _field(_TEXT),
        "insert_line": _field("integer", _WHERE),
        inserted: _field(_TEXT),
    }
    return _function(f"{told} Commands: {', '.join(commands)}.", properties, "command", "path")


def _function(told: str, properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties)}
    if required:
        parameters["required"] = list(required)
    return {"description": told, "parameters": parameters}


def _field(kind: str, told: str = "") -> dict[str, Any]:
    return {"type": kind} | ({"description": told} if told else {})
