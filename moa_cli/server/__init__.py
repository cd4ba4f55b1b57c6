"""The mixture as an OpenAI-compatible server."""
