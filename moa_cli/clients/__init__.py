"""Model endpoints: the OpenAI-compatible client, its transports, and the embedded model."""
