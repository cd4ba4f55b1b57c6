"""The paper's evaluation on one's own models."""
