"""What every room speaks in: conversation, events, errors, money, tokens, texts and files."""
