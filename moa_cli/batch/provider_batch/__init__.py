"""A batch through the batch interfaces of providers, which answer later and for less."""
