"""Conversations written out as documents."""
