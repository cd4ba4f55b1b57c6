"""Files: what may be attached to a prompt, read, searched, locked and replaced."""
