"""What a terminal or a pipe shows: the board, replies, plain lines, tables, keys."""
