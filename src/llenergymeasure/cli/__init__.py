"""The ``llem`` command: parse, call the library, print."""
