"""Rows in, a trained and calibrated causal model out."""
