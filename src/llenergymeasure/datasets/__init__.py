"""Prompts: packaged, fetched, read from a file, or synthetic."""
