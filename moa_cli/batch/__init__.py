"""Many prompts from a file, a line of JSON for each answer."""
