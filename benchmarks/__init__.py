"""Measurements of moa beside its peers; see README.md."""
