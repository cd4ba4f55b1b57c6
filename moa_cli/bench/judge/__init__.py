"""A model that judges the replies of a run."""
