"""The settings file as a text: its keys by their dotted names, its template, changes to it."""

from moa_cli.settings.change import create_file, set_setting, unset_setting
from moa_cli.settings.names import Name, dotted, find_name, leaves
from moa_cli.settings.template import explanation, template

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
