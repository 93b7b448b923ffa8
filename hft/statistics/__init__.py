"""Intervals, ratios and class metrics of plain arrays."""
