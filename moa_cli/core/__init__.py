"""Values and helpers for all packages: conversation, events, errors, money, tokens, text, files."""
