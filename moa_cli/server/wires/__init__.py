"""The wire formats of the server: a request in, events out."""
