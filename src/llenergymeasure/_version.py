"""The version, in a module of its own so that every layer may read it."""

__version__ = "2.0.0"
