"""Imports conversations: recognises what a file is, reads it, and writes it into the store."""
