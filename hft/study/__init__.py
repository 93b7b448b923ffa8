"""A study: how to search, its storage, its trials, and what it leaves."""
