"""Facts on models: providers, their lists and prices, and the choice of models."""
