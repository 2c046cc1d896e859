"""How the name of a model begins where it is no id on the Hub."""

RANDOM_PREFIX = "random:"
PATH_PREFIXES = ("./", "../", "/", "~")
"""How the name of a model begins that is a local directory whether or not it exists."""
