"""Collections of experiments."""
