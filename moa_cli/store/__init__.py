"""Conversations that last, in SQLite."""

from moa_cli.store.reading import Found, Match, Summary
from moa_cli.store.recorder import Recorder
from moa_cli.store.spending import LedgerTail, Spender, Spending, Spent
from moa_cli.store.store import Store

__all__ = [
    "Found",
    "LedgerTail",
    "Match",
    "Recorder",
    "Spender",
    "Spending",
    "Spent",
    "Store",
    "Summary",
]
