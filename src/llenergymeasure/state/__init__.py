"""The states an experiment passes through."""
