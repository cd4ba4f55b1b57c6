"""Reports on runs: figures, sections and charts."""
