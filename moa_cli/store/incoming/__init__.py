"""Conversations from elsewhere: what kind of file it is, what it holds, and taking it in."""
