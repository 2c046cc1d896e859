"""Result directories: names, atomic writes, and late aggregation of raw samples."""
