"""Conversations that last, in SQLite."""

from moa_cli.store.calls import Booking, Journal, TurnCalls
from moa_cli.store.comparisons import Comparison, Comparisons, Contender
from moa_cli.store.reading import Match, Summary
from moa_cli.store.recorder import Recorder
from moa_cli.store.search import Found
from moa_cli.store.spending import CallBook, Spending, Spent
from moa_cli.store.store import Store

__all__ = [
    "Booking",
    "CallBook",
    "Comparison",
    "Comparisons",
    "Contender",
    "Found",
    "Journal",
    "Match",
    "Recorder",
    "Spending",
    "Spent",
    "Store",
    "Summary",
    "TurnCalls",
]
