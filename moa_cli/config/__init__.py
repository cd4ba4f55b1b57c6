"""The settings file: its keys, their check, its template, and changes to its text."""

from moa_cli.config.edit import create_file, set_setting, unset_setting
from moa_cli.config.names import Name, dotted, find_name, leaves
from moa_cli.config.template import explanation, template

__all__ = [
    "Name",
    "create_file",
    "dotted",
    "explanation",
    "find_name",
    "leaves",
    "set_setting",
    "template",
    "unset_setting",
]
