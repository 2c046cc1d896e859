"""A device whose true energy is known: a twin on a virtual clock, and a library for real readers.

Both publish the same values, as pure functions of the clock and the load. They show whether a
known sensor is handled rightly; they say nothing about the gain of a real board.
"""
