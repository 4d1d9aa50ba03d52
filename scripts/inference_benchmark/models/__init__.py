"""Model sizes and weights."""
