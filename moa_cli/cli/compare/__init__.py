"""`moa compare`, and what it makes of the choices: tables, lists, exports, judges."""
