"""Conversations, spending and blind choices that last, in SQLite."""
