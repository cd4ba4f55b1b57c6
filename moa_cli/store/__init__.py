"""Conversations that last, in SQLite."""

from moa_cli.store.recorder import Recorder
from moa_cli.store.store import Found, Store, Summary

__all__ = ["Found", "Recorder", "Store", "Summary"]
