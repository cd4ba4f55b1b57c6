"""How far proposals agree: counted, compared by a model, or judged."""
