"""Source material and composition of the packaged `mixed-1k` prompt dataset."""
