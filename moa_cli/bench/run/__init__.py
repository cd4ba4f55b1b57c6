"""Runs: their plan, their calls and their results."""
