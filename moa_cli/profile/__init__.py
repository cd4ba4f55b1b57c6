"""Profiles: named, saved mixtures; reading, layering and writing them."""

from moa_cli.profile.files import (
    check_new_name,
    check_profile_name,
    copy,
    delete,
    find,
    list_profiles,
    load,
    save,
)
from moa_cli.profile.layering import Overrides, model_faults, resolve, rows
from moa_cli.profile.schema import (
    Aggregator,
    Layer,
    ModelSettings,
    Origin,
    Placement,
    Profile,
    Proposer,
    ReferenceFormat,
    build,
    dump,
    short_name,
    to_table,
)

__all__ = [
    "Aggregator",
    "Layer",
    "ModelSettings",
    "Origin",
    "Overrides",
    "Placement",
    "Profile",
    "Proposer",
    "ReferenceFormat",
    "build",
    "check_new_name",
    "check_profile_name",
    "copy",
    "delete",
    "dump",
    "find",
    "list_profiles",
    "load",
    "model_faults",
    "resolve",
    "rows",
    "save",
    "short_name",
    "to_table",
]
