"""`moa compare`: choices, and their tables, lists, exports and judges."""
