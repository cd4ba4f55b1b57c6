"""One call to a model: its attempts, how long it may be silent, when another is tried."""
