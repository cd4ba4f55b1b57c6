"""Everything that may go wrong at an endpoint, in one table, and what a turn makes of it."""
