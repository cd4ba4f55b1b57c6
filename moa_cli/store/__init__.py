"""Conversations that last, in SQLite."""

from moa_cli.store.comparisons import Comparison, Comparisons, Contender
from moa_cli.store.reading import Match, Summary
from moa_cli.store.recorder import Recorder
from moa_cli.store.search import Found
from moa_cli.store.spending import LedgerTail, Spender, Spending, Spent
from moa_cli.store.store import Store

__all__ = [
    "Comparison",
    "Comparisons",
    "Contender",
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
