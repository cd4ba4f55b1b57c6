"""What is known of models: providers, their lists and prices, and which profile to use."""
