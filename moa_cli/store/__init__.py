"""Stores conversations, spending and blind comparisons in SQLite."""
