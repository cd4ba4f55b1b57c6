"""The commands of `moa`."""
