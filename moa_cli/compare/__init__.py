"""Blind choices between answers."""
