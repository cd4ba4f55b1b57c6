"""The mixture as a tool for agents: `moa mcp`, over standard input and output or over HTTP."""
