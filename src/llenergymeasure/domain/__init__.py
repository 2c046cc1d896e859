"""Results and environment as data: models without input, output or devices."""
