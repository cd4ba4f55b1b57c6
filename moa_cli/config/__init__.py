"""The settings file: its keys, their check, its template, and changes to its text."""
