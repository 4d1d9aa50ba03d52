"""A model's sizes and weights."""
