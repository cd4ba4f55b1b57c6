"""The model that runs inside `moa`."""
