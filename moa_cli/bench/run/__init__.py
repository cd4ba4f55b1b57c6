"""A run: what it consists of, its calls, and what came of them."""
