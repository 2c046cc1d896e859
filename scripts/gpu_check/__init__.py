"""What a machine with an NVIDIA GPU can show about this package, in one report."""
