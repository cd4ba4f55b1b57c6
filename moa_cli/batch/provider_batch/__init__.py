"""Batches through the batch interfaces of providers, which answer later at lower prices."""
