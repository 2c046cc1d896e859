"""Results in words: what a result says, and how it is laid out."""
