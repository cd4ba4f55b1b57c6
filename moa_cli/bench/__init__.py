"""The evaluation of the MoA paper, on the user's own models."""
