"""How far proposals agree: by their final answers, by a model's comparison, or by a verdict."""
