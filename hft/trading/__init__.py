"""Probabilities in, sides, fills and fees out."""
