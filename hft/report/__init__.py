"""Ledgers and predictions in, scorecards, tables and figures out."""
