"""What a turn looks like: on a terminal, in a pipe, as JSON, as server-sent events."""
