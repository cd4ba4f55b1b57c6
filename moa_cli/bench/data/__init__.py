"""The datasets of an evaluation, and the items in them."""
