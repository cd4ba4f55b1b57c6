"""What can be seen of turns from outside: traces."""
