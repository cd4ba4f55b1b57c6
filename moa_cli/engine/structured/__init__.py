"""Replies in a given JSON format: what is asked for, the check, the one repair."""
