"""Ticks and bars in, aligned rows out: features, labels, splits, transforms."""
