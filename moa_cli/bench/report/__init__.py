"""What runs came to: figures, sections and charts."""
