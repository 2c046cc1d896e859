"""Experiment, study and user configuration, and the tables of what each backend supports."""
