"""Helpers for files: to attach, read, search, lock and replace them."""
