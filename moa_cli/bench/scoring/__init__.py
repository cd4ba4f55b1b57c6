"""Judge prompts and scores of the public evaluations: pure functions of texts and numbers."""
