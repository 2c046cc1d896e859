"""One experiment: pre-flight, lifecycle, and the worker that runs it on a directory."""
