"""Inference backends, energy sources, models and metrics."""
