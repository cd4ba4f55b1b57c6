"""`moa bench` and its subcommands."""
