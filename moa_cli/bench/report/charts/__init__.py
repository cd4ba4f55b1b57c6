"""Charts as inline SVG, drawn by a page's own style: no script, and nothing to fetch."""
