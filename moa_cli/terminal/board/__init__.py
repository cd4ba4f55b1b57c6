"""The live board of a turn at a terminal."""
