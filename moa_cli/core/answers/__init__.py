"""Answers that have a value: where a text says it, and whether two are the same."""
