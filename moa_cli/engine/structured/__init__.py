"""Replies in a given JSON format: the request for it, the check, and one attempt to repair."""
